"""NAT behaviour discovery (RFC 5780) on real sockets: whence answers come, and where they go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from relay.config import ClientLimits, RelayConfig
from relay.core.settings import NatDiscovery
from relay.machine import RelayStartError
from relay.runner import Runner
from tests.certificates import Files
from tests.ports import free_port
from tests.relay.transports.rig import (
    HOSTS,
    PATIENCE_SECONDS,
    RunningRelay,
    config_running,
    relay_config,
)
from tests.stream_client import StreamClient
from tests.turn_client import Attribute, Attributes, Kind, Message, Method
from tests.turn_client import message_decode as decode
from tests.turn_client import message_encode as encode

FIRST, OTHER = HOSTS[4], "127.0.0.2"
CHANGE_REQUEST, PADDING, RESPONSE_PORT = 0x0003, 0x0026, 0x0027
OTHER_ADDRESS = 0x802C
# Of an IPv4 packet of 64 KiB, what is left to PADDING, in steps of four bytes.
PADDING_SENT_MAX = 65535 - 20 - 8 - 20 - 4 & ~3


def discovery_config(home: Path, certificate: Files | None) -> RelayConfig:
    config = relay_config(home, certificate, ClientLimits(), ())
    discovery = NatDiscovery((FIRST, OTHER), (config.listen_port, free_port()))
    return replace(config, turn=replace(config.turn, nat_discovery=discovery))


@pytest.fixture
def discovering(tmp_path: Path, certificate: Files) -> Iterator[RunningRelay]:
    """A relay with a second address and a second port."""
    with config_running(discovery_config(tmp_path, certificate)) as running:
        yield running


@pytest.fixture
def endpoints() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two sockets of one client, on one address."""
    with ExitStack() as stack:
        made = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
        ]
        for endpoint in made:
            endpoint.bind((FIRST, 0))
            endpoint.settimeout(PATIENCE_SECONDS)
        yield made[0], made[1]


def ports_of(relay: RunningRelay) -> tuple[int, int]:
    discovery = relay.config.turn.nat_discovery
    assert discovery is not None
    return discovery.ports


def ask(asking: socket.socket, attributes: Attributes, server: tuple[str, int]) -> None:
    asking.sendto(encode(Method.BINDING, Kind.REQUEST, attributes), server)


def answer_at(endpoint: socket.socket) -> tuple[Message, tuple[str, int]]:
    """The answer that comes there, and where it comes from."""
    datagram, source = endpoint.recvfrom(65536)
    return decode(datagram), source


@pytest.mark.parametrize("host", [FIRST, OTHER])
@pytest.mark.parametrize("flags", [None, 0, 2, 4, 6])
@pytest.mark.parametrize("second_port", [False, True])
def test_answer_leaves_from_the_address_that_was_wished(
    discovering: RunningRelay,
    endpoints: tuple[socket.socket, socket.socket],
    host: str,
    flags: int | None,
    second_port: bool,
) -> None:
    ports, hosts = ports_of(discovering), (FIRST, OTHER)
    attributes = [] if flags is None else [(CHANGE_REQUEST, bytes((0, 0, 0, flags)))]
    ask(endpoints[0], attributes, (host, ports[second_port]))
    answer, source = answer_at(endpoints[0])
    change_ip, change_port = bool((flags or 0) & 4), bool((flags or 0) & 2)
    assert source == (hosts[(host == OTHER) != change_ip], ports[second_port != change_port])
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == endpoints[0].getsockname()


def test_answer_arrives_at_the_response_port(
    discovering: RunningRelay, endpoints: tuple[socket.socket, socket.socket]
) -> None:
    asking, other = endpoints
    port = other.getsockname()[1].to_bytes(2, "big")
    server = FIRST, ports_of(discovering)[0]
    ask(asking, [(RESPONSE_PORT, port + bytes(2))], server)
    answer, source = answer_at(other)
    assert source == server
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == asking.getsockname()


def test_longest_padding_that_can_be_sent_is_answered(
    discovering: RunningRelay, endpoints: tuple[socket.socket, socket.socket]
) -> None:
    ask(endpoints[0], [(PADDING, bytes(PADDING_SENT_MAX))], (FIRST, ports_of(discovering)[0]))
    answer, _ = answer_at(endpoints[0])
    assert len(answer.attributes[PADDING]) > PADDING_SENT_MAX - 200


def test_other_address_takes_connections_and_names_the_first(discovering: RunningRelay) -> None:
    asked: list[tuple[str, int]] = []
    server = FIRST, ports_of(discovering)[0]
    for _ in range(2):
        asked.append(server)
        with StreamClient(server) as client:
            answer = client.exchange(Method.BINDING)
            assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == client.socket.getsockname()
            value = answer.attributes[OTHER_ADDRESS]
            server = socket.inet_ntoa(value[4:]), int.from_bytes(value[2:4], "big")
    assert asked == [(FIRST, ports_of(discovering)[0]), (OTHER, ports_of(discovering)[1])]
    assert server == asked[0]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_relay_that_cannot_have_all_four_addresses_does_not_start(
    tmp_path: Path, kind: socket.SocketKind
) -> None:
    config = discovery_config(tmp_path, None)
    discovery = config.turn.nat_discovery
    assert discovery is not None
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((OTHER, discovery.ports[1]))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        with pytest.raises(RelayStartError, match=f"{OTHER} port {discovery.ports[1]}"):
            Runner(config)
