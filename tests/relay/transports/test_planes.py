"""Data through a whole relay, with io_uring and without: the same bytes, the same counts."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from relay.config import ClientLimits
from relay.core.allocation import Allocation
from relay.core.policy import PeerPolicyRules
from relay.transports.rings import ENTRIES, SLOTS
from tests.relay.rings import ring_or_skip
from tests.relay.transports.rig import (
    PATIENCE_SECONDS,
    DatagramClient,
    RunningRelay,
    config_running,
    relay_config,
    until,
)

CHANNEL, OTHER_CHANNEL = 0x4001, 0x4002
UNROUTED = ("192.0.2.1", 9999)  # nobody, and no socket that is bound to loopback can send there
COUNT = 3 * max(ENTRIES, SLOTS)


@pytest.fixture(params=[True, False], ids=["io_uring", "sockets"])
def relay(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningRelay]:
    """A relay that has an io_uring, or none."""
    if request.param:
        ring_or_skip().close()
    config = relay_config(tmp_path, None, ClientLimits(), ())
    rules = PeerPolicyRules(allowed=("127.0.0.0/8", "192.0.2.1/32"))
    turn = replace(config.turn, peer_rules=rules)
    with config_running(replace(config, io_uring=request.param, turn=turn)) as running:
        assert running.ask(lambda runner: runner._ring is not None) == request.param
        yield running


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(PATIENCE_SECONDS)
        yield made


@pytest.fixture
def client(relay: RunningRelay) -> Iterator[DatagramClient]:
    with relay.client("udp") as made:
        assert isinstance(made, DatagramClient)
        yield made


def counted(relay: RunningRelay, before: tuple[int, ...]) -> list[int]:
    return [new - old for new, old in zip(relay.counters(), before, strict=True)]


def test_many_datagrams_both_ways_are_counted_to_the_byte(
    relay: RunningRelay, client: DatagramClient, peer: socket.socket
) -> None:
    relayed = client.allocate()
    client.bind(CHANNEL, peer.getsockname())
    before, sizes = relay.counters(), [number % 1200 for number in range(COUNT)]
    for first in range(0, COUNT, 32):  # no more at a time than a small socket holds
        batch = sizes[first : first + 32]
        for number, size in enumerate(batch):
            client.send_channel(CHANNEL, b"%04d" % (first + number) + bytes(size))
        for number, size in enumerate(batch):
            data, source = peer.recvfrom(2000)
            assert (data, source) == (b"%04d" % (first + number) + bytes(size), relayed)
            peer.sendto(data, relayed)
        for number, size in enumerate(batch):
            assert client.receive() == (CHANNEL, b"%04d" % (first + number) + bytes(size))
    plain, framed = sum(sizes) + 4 * COUNT, sum(sizes) + 8 * COUNT
    assert counted(relay, before) == [framed, framed, plain, plain]


def test_what_cannot_be_sent_is_dropped_and_not_counted(
    relay: RunningRelay, client: DatagramClient, peer: socket.socket
) -> None:
    relayed = client.allocate()
    client.bind(CHANNEL, peer.getsockname())
    client.bind(OTHER_CHANNEL, UNROUTED)
    for _ in range(2):
        client.send_channel(CHANNEL, b"known")
        assert peer.recv(100) == b"known"
        peer.sendto(b"known", relayed)
        assert client.receive() == (CHANNEL, b"known")
    before = relay.counters()
    for _ in range(3):
        client.send_channel(OTHER_CHANNEL, b"nowhere")
        client.send_channel(CHANNEL, b"next")
        assert peer.recv(100) == b"next"
        peer.sendto(bytes(65507), relayed)  # with a header it is too long
        peer.sendto(b"next", relayed)
        assert client.receive() == (CHANNEL, b"next")
    assert relay.dropped("peer unreachable") == 3
    assert relay.dropped("client unreachable") == 3
    assert counted(relay, before) == [3 * (11 + 8), 3 * 8, 3 * (65507 + 4), 3 * 4]


def test_peer_with_another_channel_is_heard_on_that(
    relay: RunningRelay, client: DatagramClient, peer: socket.socket
) -> None:
    relayed = client.allocate()
    for channel, other in ((CHANNEL, OTHER_CHANNEL), (OTHER_CHANNEL, CHANNEL)):
        client.bind(channel, peer.getsockname())
        for data in (b"one", b"two", b""):
            client.send_channel(channel, data)
            assert peer.recv(100) == data
            peer.sendto(data, relayed)
            assert client.receive() == (channel, data)
        relay.ask(lambda runner: channels_end(runner._turn.table.by_id.values()))
        peer.sendto(b"no channel", relayed)
        assert client.receive() == (peer.getsockname(), b"no channel")
        client.send_channel(other, b"not bound")
    assert until(lambda: relay.dropped("no channel") == 2)


def test_client_that_takes_the_place_of_another_has_its_own_data(
    relay: RunningRelay, client: DatagramClient, peer: socket.socket
) -> None:
    for number in range(3):  # one five-tuple, one allocation after the other
        relayed = client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        for _ in range(2):
            client.send_channel(CHANNEL, b"%d" % number)
            assert peer.recvfrom(100) == (b"%d" % number, relayed)
            peer.sendto(b"%d" % number, relayed)
            assert client.receive() == (CHANNEL, b"%d" % number)
        client.refresh(0)
        client.send_channel(CHANNEL, b"ended")
        assert until(partial(dropped_are, relay, number + 1))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(relayed)  # its port is free


def test_errors_of_a_peer_that_is_gone_stop_nothing(
    relay: RunningRelay, client: DatagramClient, peer: socket.socket
) -> None:
    relayed = client.allocate()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nobody = gone.getsockname()
    client.bind(CHANNEL, peer.getsockname())
    client.bind(OTHER_CHANNEL, nobody)
    for number in range(50):
        client.send_channel(OTHER_CHANNEL, b"nobody there")
        client.send_channel(CHANNEL, b"%d" % number)
        assert peer.recv(100) == b"%d" % number
        peer.sendto(b"%d" % number, relayed)
        assert client.receive() == (CHANNEL, b"%d" % number)
    assert relay.dropped("peer unreachable") == 0


def dropped_are(relay: RunningRelay, count: int) -> bool:
    return relay.dropped("no allocation") == count


def channels_end(allocations: Iterable[Allocation]) -> None:
    """As if their time was over."""
    for allocation in allocations:
        for channel in list(allocation.channels.values()):
            allocation._channel_remove(channel)
