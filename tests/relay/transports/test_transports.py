"""Calls over every transport, and their bytes counted exactly."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from relay.core.addresses import FiveTuple
from tests.relay.transports.rig import HOSTS, PATIENCE_SECONDS, RunningRelay, until
from tests.turn_client import Attribute, Kind, Method, message_decode, message_encode

CHANNEL = 0x4001
TRANSPORTS = ["udp", "tcp", "tls", "dtls"]
STREAMS = ["tcp", "tls"]
SIZES = [0, 1, 2, 3, 4, 160, 1201, 9000]

every_transport = pytest.mark.parametrize("transport", TRANSPORTS)
every_family = pytest.mark.parametrize("family", HOSTS)


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind((HOSTS[4], 0))
        endpoint.settimeout(PATIENCE_SECONDS)
        yield endpoint


@every_family
@every_transport
def test_binding_tells_the_clients_address(
    relay: RunningRelay, transport: str, family: int
) -> None:
    with relay.client(transport, family) as client:
        value = client.exchange(Method.BINDING).attributes[Attribute.XOR_MAPPED_ADDRESS]
        assert value[1] == (1 if family == 4 else 2)
        assert int.from_bytes(value[2:4], "big") ^ 0x2112 == client.socket.getsockname()[1]


@every_transport
def test_both_ports_take_every_transport(relay: RunningRelay, transport: str) -> None:
    with relay.client(transport, port=relay.config.tls_port) as client:
        assert client.binding() == client.socket.getsockname()[:2]


@every_family
@every_transport
def test_call_runs_over_every_transport_and_is_counted_to_the_byte(
    relay: RunningRelay, peer: socket.socket, transport: str, family: int
) -> None:
    with relay.client(transport, family) as client:
        relayed = client.allocate()
        counted_from = len(client.sent) - 1, len(client.received) - 1  # without the challenge
        client.bind(CHANNEL, peer.getsockname())
        for size in SIZES:
            client.send_channel(CHANNEL, b"c" * size)
            assert peer.recvfrom(65536) == (b"c" * size, relayed)
            peer.sendto(b"p" * size, relayed)
            assert client.receive() == (CHANNEL, b"p" * size)
        client.send(peer.getsockname(), b"indication")
        assert peer.recv(100) == b"indication"
        relay_bytes = sum(SIZES)
        assert relay.counters() == (
            sum(client.sent[counted_from[0] :]),
            sum(client.received[counted_from[1] :]),
            relay_bytes,
            relay_bytes + len(b"indication"),
        )


@pytest.mark.parametrize("transport", STREAMS)
def test_channeldata_from_a_stream_is_padded_and_counted_with_its_padding(
    relay: RunningRelay, peer: socket.socket, transport: str
) -> None:
    with relay.client(transport) as client:
        relayed = client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        before = relay.counters()
        client.send_channel(CHANNEL, b"12345")
        assert peer.recv(100) == b"12345"
        peer.sendto(b"1", relayed)
        assert client.receive() == (CHANNEL, b"1")
        after = relay.counters()
        assert [new - old for new, old in zip(after, before, strict=True)] == [12, 8, 1, 5]


@pytest.mark.parametrize("transport", ["udp", "dtls"])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_channeldata_in_a_datagram_may_be_padded(
    relay: RunningRelay, peer: socket.socket, transport: str, padding: int
) -> None:
    with relay.client(transport) as client:
        relayed = client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        client.transmit(b"\x40\x01\x00\x05hello" + bytes(padding))
        assert peer.recv(100) == b"hello"
        peer.sendto(b"1", relayed)
        assert client.receive() == (CHANNEL, b"1")
        assert client.received[-1] == 5


@pytest.mark.parametrize(
    "first_bytes",
    [range(4, 20), range(20, 64), range(80, 128), range(128, 256)],
    ids=["zrtp", "dtls without a hello", "reserved", "rtp and quic"],
)
def test_datagrams_of_other_protocols_are_dropped(
    relay: RunningRelay, peer: socket.socket, first_bytes: range
) -> None:
    message = message_encode(Method.BINDING, Kind.REQUEST)
    with relay.client("udp") as client:
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        for first in first_bytes:
            client.socket.send(bytes((first,)) + message[1:])
        client.send_channel(CHANNEL, b"a channel's")
        assert peer.recv(100) == b"a channel's"
        received = len(client.received)
        client.binding()
        assert len(client.received) == received + 1
        dropped = relay.dropped("malformed") + relay.dropped("no channel")
        assert dropped == len(first_bytes)


@pytest.mark.parametrize("rest", [b"", b"\x80" * 100], ids=["end", "junk"])
def test_request_is_answered_before_its_connection_is_closed(
    relay: RunningRelay, rest: bytes
) -> None:
    with relay.connect() as connection:
        connection.sendall(message_encode(Method.BINDING, Kind.REQUEST) + rest)
        if not rest:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(100):
            answer += part
    assert message_decode(answer).kind is Kind.SUCCESS


@pytest.mark.parametrize("transport", STREAMS)
def test_answer_whose_connection_is_gone_is_dropped_and_none_is_opened(
    relay: RunningRelay, transport: str
) -> None:
    with socket.create_server((HOSTS[4], 0)) as listening, relay.client("udp") as client:
        listening.setblocking(False)
        server = HOSTS[4], relay.config.listen_port
        gone = FiveTuple(transport, listening.getsockname(), server)
        assert relay.ask(lambda runner: runner.clients.send(bytes(20), gone)) == 0
        client.binding()
        assert relay.dropped("client unreachable") == 1
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize("transport", STREAMS)
def test_several_messages_in_one_segment_and_one_in_several_are_the_same(
    relay: RunningRelay, peer: socket.socket, transport: str
) -> None:
    with relay.client(transport) as client:
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        message = b"\x40\x01\x00\x05hello\0\0\0"
        client.socket.sendall(message * 3 + message[:7])
        assert [peer.recv(100) for _ in range(3)] == [b"hello"] * 3
        client.socket.sendall(message[7:])
        assert peer.recv(100) == b"hello"


def test_first_request_over_tls_waits_for_no_delayed_acknowledgement(relay: RunningRelay) -> None:
    def seconds() -> float:
        with relay.client("tls") as client:
            begun = time.monotonic()
            client.binding()
            return time.monotonic() - begun

    assert any(seconds() < 0.03 for _ in range(50))  # a busy machine has its moments


def test_allocations_on_one_host_and_port_are_apart_by_transport(relay: RunningRelay) -> None:
    clients = [relay.client(transport) for transport in TRANSPORTS]
    assert len({client.allocate()[1] for client in clients}) == len(TRANSPORTS)
    assert relay.allocations() == len(TRANSPORTS)
    for client in clients:
        client.refresh(0)
        client.socket.close()
    assert relay.allocations() == 0


@pytest.mark.parametrize("transport", STREAMS)
def test_allocation_ends_with_its_connection(relay: RunningRelay, transport: str) -> None:
    with relay.client(transport) as client:
        client.allocate()
        assert relay.allocations() == 1
    assert until(lambda: relay.allocations() == 0)
    assert until(lambda: relay.connections() == 0)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_relay_that_stops_ends_calls_of_every_transport(
    relay: RunningRelay, transport: str
) -> None:
    client = relay.client(transport)
    client.allocate()
    relay.stop()
    client.socket.close()
