"""TCP connections with peers through a running relay: RFC 6062."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from relay.core.limits import ProjectLimits
from relay.runner import Runner
from tests.relay.transports.rig import HOSTS, PATIENCE_SECONDS, RunningRelay, until
from tests.turn_client import (
    Address,
    Attribute,
    Attributes,
    Kind,
    Method,
    TurnClient,
    TurnError,
    message_decode,
    message_encode,
)

TCP = (Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")
MEGABYTES = 4 << 20
TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", "tls"])


class Side:
    """A relay, a peer that listens, and what a test opens; all is closed at its end."""

    def __init__(self, relay: RunningRelay, stack: ExitStack) -> None:
        self.relay = relay
        self.stack = stack
        self.credential = relay.credential()
        self.listener = self.keep(socket.create_server((HOSTS[4], 0)))

    def keep(self, opened: socket.socket) -> socket.socket:
        opened.settimeout(PATIENCE_SECONDS)
        return self.stack.enter_context(opened)

    def client(self, transport: str) -> TurnClient:
        made = self.relay.client(transport)
        made.username, made.password = self.credential
        self.keep(made.socket)
        return made

    def allocated(self, transport: str) -> tuple[TurnClient, Address]:
        client = self.client(transport)
        answer = client.request(Method.ALLOCATE, [TCP])
        return client, answer.address(Attribute.XOR_RELAYED_ADDRESS)

    def spliced(self, client: TurnClient, transport: str) -> tuple[socket.socket, socket.socket]:
        """A client's data connection and the peer that it goes to."""
        connection_id, peer = self.asked(client)
        return self.data_connection(transport, connection_id), peer

    def asked(self, client: TurnClient) -> tuple[bytes, socket.socket]:
        """A connection that the client has asked for: its id, and the peer."""
        connection_id = connected(client, self.listener.getsockname())
        peer, _ = self.listener.accept()
        return connection_id, self.keep(peer)

    def come(self, client: TurnClient, relayed: Address) -> tuple[bytes, socket.socket]:
        """A connection that the peer has made."""
        client.permit((HOSTS[4], 1))
        peer = self.keep(socket.create_connection(relayed))
        while not client.attempts:
            client.message_take(message_decode(client.datagram_receive()))
        return client.attempts[0][1], peer

    def data_connection(self, transport: str, connection_id: bytes) -> socket.socket:
        client = self.client(transport)
        client.request(Method.CONNECTION_BIND, [(Attribute.CONNECTION_ID, connection_id)])
        return client.socket


@pytest.fixture
def side(relay: RunningRelay) -> Iterator[Side]:
    with ExitStack() as stack:
        yield Side(relay, stack)


def connected(client: TurnClient, peer: Address) -> bytes:
    """The id of a new connection."""
    answer = client.request(Method.CONNECT, [(Attribute.XOR_PEER_ADDRESS, peer)])
    return answer.attributes[Attribute.CONNECTION_ID]


def limits_set(relay: RunningRelay, limits: ProjectLimits) -> None:
    """Give the project of the rig's clients other limits."""

    def change(runner: Runner) -> None:
        control, now = runner._turn.control, runner._clock.steady()
        runner._perform(control.project_limits_set("prj_aaaaaaaaaaaa", limits, now))

    relay.ask(change)


def waiting(runner: Runner) -> list[int]:
    """How many bytes wait in the relay, by connection with a peer: the larger of both ways."""
    return [
        max(len(splice.backlog), splice.client.backlog_bytes if splice.client is not None else 0)
        for splice in runner._peers._splices.values()
    ]


def exactly(source: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = source.recv(min(1 << 16, length - len(data)))
        assert part, "closed too early"
        data += part
    return bytes(data)


@TRANSPORTS
def test_data_goes_both_ways_unchanged_and_is_counted_to_the_byte(
    side: Side, transport: str
) -> None:
    client, _ = side.allocated(transport)
    data, peer = side.spliced(client, transport)
    before = side.relay.counters()
    there, back = os.urandom(MEGABYTES), os.urandom(MEGABYTES)
    for end, other, sent in ((data, peer, there), (peer, data, back)):
        sender = threading.Thread(target=end.sendall, args=(sent,))
        sender.start()
        assert exactly(other, MEGABYTES) == sent
        sender.join()
    moved = [after - old for after, old in zip(side.relay.counters(), before, strict=True)]
    assert moved == [MEGABYTES] * 4


@TRANSPORTS
def test_peer_that_connects_is_told_and_spliced_and_a_stranger_is_closed(
    side: Side, transport: str
) -> None:
    client, relayed = side.allocated(transport)
    assert side.keep(socket.create_connection(relayed)).recv(1) == b""
    client.permit((HOSTS[4], 1))
    peer = side.keep(socket.create_connection(relayed))
    peer.sendall(b"said before anybody listened")
    while not client.attempts:
        client.message_take(message_decode(client.datagram_receive()))
    ((address, connection_id),) = client.attempts
    assert address == peer.getsockname()
    data = side.data_connection(transport, connection_id)
    assert exactly(data, 28) == b"said before anybody listened"
    peer.close()
    assert data.recv(1) == b""


def test_connection_with_a_peer_is_made_from_the_relayed_address(side: Side) -> None:
    client, relayed = side.allocated("tcp")
    _, peer = side.asked(client)
    assert peer.getpeername() == relayed


@pytest.mark.parametrize("come", [False, True], ids=["asked", "come"])
def test_what_a_peer_says_before_it_is_bound_waits_in_the_kernel_and_is_not_lost(
    side: Side, come: bool
) -> None:
    client, relayed = side.allocated("tcp")
    connection_id, peer = side.come(client, relayed) if come else side.asked(client)
    block, said = os.urandom(1 << 16), bytearray()
    peer.settimeout(1)
    with pytest.raises(TimeoutError):  # the window is full: nobody reads
        while len(said) < 256 << 20:
            said += block[: peer.send(block)]
    assert side.relay.ask(waiting) == [0]
    data = side.data_connection("tcp", connection_id)
    assert exactly(data, len(said)) == said


@TRANSPORTS
def test_data_right_behind_the_request_that_binds_is_the_peers(side: Side, transport: str) -> None:
    client, _ = side.allocated(transport)
    connection_id, peer = side.asked(client)
    data = side.client(transport)
    attributes: Attributes = [(Attribute.CONNECTION_ID, connection_id)]
    data.challenge_take(data.exchange(Method.CONNECTION_BIND, attributes))
    signed = data.signed(attributes)
    request = message_encode(Method.CONNECTION_BIND, Kind.REQUEST, signed, key=data.key)
    data.socket.sendall(request + b"said at once")
    assert message_decode(data.datagram_receive()).kind is Kind.SUCCESS
    assert exactly(peer, 12) == b"said at once"


@TRANSPORTS
def test_message_on_a_data_connection_is_data(side: Side, transport: str) -> None:
    client, _ = side.allocated(transport)
    data, peer = side.spliced(client, transport)
    message = message_encode(Method.BINDING, Kind.REQUEST)
    for end, other in ((data, peer), (peer, data)):
        end.sendall(message)
        assert exactly(other, len(message)) == message


@pytest.mark.parametrize("first", ["peer", "client"])
def test_either_end_closes_the_other_one_after_the_last_byte(side: Side, first: str) -> None:
    client, _ = side.allocated("tcp")
    data, peer = side.spliced(client, "tcp")
    closed, other = (peer, data) if first == "peer" else (data, peer)
    closed.sendall(bytes(100_000))
    closed.close()
    assert len(exactly(other, 100_000)) == 100_000
    assert other.recv(1) == b""


def test_end_of_the_control_connection_ends_every_data_connection(side: Side) -> None:
    client, _ = side.allocated("tcp")
    data, peer = side.spliced(client, "tcp")
    client.socket.close()
    assert (data.recv(1), peer.recv(1)) == (b"", b"")
    assert until(lambda: side.relay.allocations() == 0)


def test_end_of_the_allocation_ends_every_data_connection_and_listens_no_more(side: Side) -> None:
    client, relayed = side.allocated("tcp")
    data, peer = side.spliced(client, "tcp")
    client.refresh(0)
    assert (data.recv(1), peer.recv(1)) == (b"", b"")
    assert side.relay.allocations() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(relayed)


@pytest.mark.parametrize("idle", ["peer", "client"])
def test_end_that_does_not_read_stops_the_other_one_and_costs_no_memory(
    side: Side, idle: str
) -> None:
    client, _ = side.allocated("tcp")
    data, peer = side.spliced(client, "tcp")
    busy, reader = (data, peer) if idle == "peer" else (peer, data)
    busy.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 256 << 20:
            sent += busy.send(bytes(1 << 16))
    assert max(side.relay.ask(waiting)) <= 2 << 16
    assert len(exactly(reader, sent)) == sent


def test_media_only_closes_every_data_connection(side: Side) -> None:
    client, _ = side.allocated("tcp")
    data, peer = side.spliced(client, "tcp")
    limits_set(side.relay, ProjectLimits(media_only=True))
    assert (data.recv(1), peer.recv(1)) == (b"", b"")
    assert side.relay.allocations() == 0


@pytest.mark.parametrize("bitrate_bps", [None, 800_000_000], ids=["lifted", "raised"])
@pytest.mark.parametrize("busy", ["peer", "client"])
def test_connection_that_rests_goes_on_once_its_bitrate_is(
    side: Side, busy: str, bitrate_bps: int | None
) -> None:
    client, _ = side.allocated("tcp")
    data, peer = side.spliced(client, "tcp")
    sender, reader = (peer, data) if busy == "peer" else (data, peer)
    limits_set(side.relay, ProjectLimits(bitrate_bps_max=100))
    sender.sendall(bytes(10_000))
    assert len(exactly(reader, 1)) == 1  # what was read once is not held back: it rests after that
    assert until(lambda: side.relay.ask(lambda runner: len(runner._peers._paused)) == 1)
    limits_set(side.relay, ProjectLimits(bitrate_bps_max=bitrate_bps))
    sender.sendall(bytes(10_000))
    assert len(exactly(reader, 19_999)) == 19_999


def test_peer_that_refuses_is_447(side: Side) -> None:
    address = side.listener.getsockname()
    side.listener.close()
    client, _ = side.allocated("tcp")
    with pytest.raises(TurnError, check=lambda error: error.code == 447):
        connected(client, address)
