"""The relayed sockets on loopback: ICMP errors, DF, both families."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from relay.core.addresses import SockAddress, host_family
from relay.transports.moderation import Moderation
from relay.transports.relayed import EVENTS_MAX, TURN_SECONDS
from relay.transports.rings import SLOTS, Ring
from tests.relay.fake_link import FakeClient
from tests.relay.rings import ring_or_skip
from tests.relay.transports.relayed_world import (
    LOOPBACK,
    PATIENCE_SECONDS,
    RELAY_ADDRESSES,
    RelayedWorld,
)
from tests.skips import skip
from tests.turn_client import UDP_PROTOCOL, Attribute, Method, allocate_attributes

CHANNEL = 0x4000
ENDPOINT = ("192.0.2.1", 3478)  # where clients believe to send to
ETHERTYPE_IPV4 = 0x0800
IPV4_DF = 0x40
DUAL = [
    (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL),
    (Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\x02\0\0\0"),
]


@pytest.fixture
def client(world: RelayedWorld) -> FakeClient:
    """A client with a dual allocation and permissions for loopback."""
    made = world.client()
    made.request(Method.ALLOCATE, DUAL)
    made.permit(("127.0.0.1", 0), ("::1", 0))
    return made


def peer_socket(host: str) -> socket.socket:
    family = {1: socket.AF_INET, 2: socket.AF_INET6}[host_family(host)]
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((host, 0))
    made.settimeout(PATIENCE_SECONDS)
    return made


@pytest.mark.parametrize("host", LOOPBACK)
def test_data_goes_both_ways_in_either_family(
    world: RelayedWorld, client: FakeClient, host: str
) -> None:
    with peer_socket(host) as peer:
        address = peer.getsockname()[:2]
        client.send(address, b"out")
        data, source = peer.recvfrom(100)
        assert data == b"out"
        peer.sendto(b"in", source)
        world.drain_until(lambda: bool(client.arrived))
        assert client.receive() == (address, b"in")
        client.send(address, b"")
        assert peer.recv(100) == b""
        peer.sendto(b"", source)
        world.drain_until(lambda: bool(client.arrived))
        assert client.receive() == (address, b"")


def test_reserved_port_is_held_and_deaf_until_somebody_comes_for_it(world: RelayedWorld) -> None:
    """Whatever else this host runs: its programs are given ports of this range, too."""
    first, second = world.client(), world.client(("192.0.2.8", 40000))
    token, port = pair_reserve(first)
    with pytest.raises(OSError, match="in use"), socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((RELAY_ADDRESSES[0], port))
    with peer_socket("127.0.0.1") as peer:
        peer.sendto(b"before it is anybody's", (RELAY_ADDRESSES[0], port))
        assert redeem(second, token)[1] == port
        second.permit(("127.0.0.1", 0))
        peer.sendto(b"after", (RELAY_ADDRESSES[0], port))
        world.drain_until(lambda: bool(second.arrived))
        assert second.receive() == (peer.getsockname(), b"after")
        assert world.turn.dropped["no permission"] == 0


def test_reserved_port_that_nobody_comes_for_is_free_again(world: RelayedWorld) -> None:
    _, port = pair_reserve(world.client())
    world.pass_seconds(31)
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((RELAY_ADDRESSES[0], port))


def test_pair_is_given_where_both_ports_can_be_had(world: RelayedWorld) -> None:
    world.turn.table.ports.replace(world.turn.table.relay_hosts, 50000, 50299)
    with contextlib.ExitStack() as stack:
        for port in range(50001, 50300, 32):  # of each 16th pair
            other = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):
                other.bind((RELAY_ADDRESSES[0], port))
        for number in range(60):
            client = world.client(("192.0.2.9", 40000 + number))
            assert pair_reserve(client)[1] % 32 != 50001 % 32
            client.refresh(0)
    assert world.openings_failed


@pytest.mark.parametrize("claimed", [True, False])
def test_port_that_was_reserved_serves_again(world: RelayedWorld, *, claimed: bool) -> None:
    world.turn.table.ports.replace(world.turn.table.relay_hosts, 50000, 50001)
    first, second = world.client(), world.client(("192.0.2.8", 40000))
    for number in range(3):
        token, port = pair_reserve(first)
        if claimed or number == 2:
            redeem(second, token)
            second.permit(("127.0.0.1", 0))
            with peer_socket("127.0.0.1") as peer:
                second.send(peer.getsockname(), b"there")
                data, (_, source) = peer.recvfrom(100)
                assert (data, source) == (b"there", port)
            second.refresh(0)
        first.refresh(0)
        world.pass_seconds(31)
    assert {first.port(), second.port()} == {50000, 50001}
    assert world.openings_failed == 0


@pytest.mark.parametrize("host", LOOPBACK)
def test_icmp_errors_that_come_before_a_reserved_port_is_anybodys_are_not_kept(
    world: RelayedWorld, host: str
) -> None:
    """Anybody can send one that names the port: nobody would take it for 30 seconds."""
    first, second = world.client(), world.client(("192.0.2.8", 40000))
    token, port = pair_reserve(first, host_family(host))
    family = {1: socket.AF_INET, 2: socket.AF_INET6}[host_family(host)]
    with peer_socket(host) as gone:
        nobody = gone.getsockname()[:2]
    [held] = world.sockets._reserved.values()
    assert (held.family, held.getsockname()[1]) == (family, port)
    with contextlib.suppress(OSError):  # as if it had sent something: an error comes back
        held.sendto(b"nobody there", nobody)
    redeem(second, token)
    second.permit((nobody[0], 0))
    world.sockets.drain()
    assert not second.arrived


def redeem(client: FakeClient, token: bytes) -> tuple[str, int]:
    """Allocate the port that was reserved; its address."""
    values = [*allocate_attributes(), (Attribute.RESERVATION_TOKEN, token)]
    return client.request(Method.ALLOCATE, values).address(Attribute.XOR_RELAYED_ADDRESS)


def pair_reserve(client: FakeClient, family: int = 1) -> tuple[bytes, int]:
    """Ask for an even port and the next one: that one's token and number."""
    values = [
        *allocate_attributes(),
        (Attribute.REQUESTED_ADDRESS_FAMILY, bytes((family, 0, 0, 0))),
        (Attribute.EVEN_PORT, b"\x80"),
    ]
    answer = client.request(Method.ALLOCATE, values)
    _, port = answer.address(Attribute.XOR_RELAYED_ADDRESS)
    return answer.attributes[Attribute.RESERVATION_TOKEN], port + 1


@pytest.mark.parametrize(("host", "icmp"), [("127.0.0.1", (3, 3)), ("::1", (1, 4))])
def test_unreachable_port_of_a_peer_is_told_to_the_client(
    world: RelayedWorld, client: FakeClient, host: str, icmp: tuple[int, int]
) -> None:
    with peer_socket(host) as peer:
        address = peer.getsockname()[:2]
    client.send(address, b"nobody there")
    world.drain_until(lambda: bool(client.arrived))
    with pytest.raises(TimeoutError):
        client.receive()
    value = (icmp[0] << 9 | icmp[1]).to_bytes(4, "big") + bytes(4)
    assert client.icmp == [(address, value)]


def test_icmp_error_of_one_peer_loses_no_datagram_to_another(
    world: RelayedWorld, client: FakeClient
) -> None:
    with peer_socket("127.0.0.1") as gone:
        nobody = gone.getsockname()
    with peer_socket("127.0.0.1") as peer:
        for number in range(50):
            client.send(nobody, b"nobody there")
            client.send(peer.getsockname(), b"%d" % number)
        assert [int(peer.recv(100)) for _ in range(50)] == list(range(50))
    assert world.turn.dropped["peer unreachable"] == 0


def test_df_is_set_for_the_send_that_asks_for_it_and_for_no_other(
    world: RelayedWorld, client: FakeClient
) -> None:
    try:
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPE_IPV4))
    except PermissionError:
        skip("seeing the DF bit needs CAP_NET_RAW")
    marks = [b"DF is %d in %d" % (wanted, id(client)) for wanted in (0, 1, 0)]
    with sniffer, peer_socket("127.0.0.1") as peer:
        sniffer.bind(("lo", ETHERTYPE_IPV4))
        sniffer.settimeout(PATIENCE_SECONDS)
        allocation = world.started[0]
        for mark, wanted in zip(marks, (False, True, False), strict=True):
            world.sockets.send(allocation, mark, peer.getsockname(), dont_fragment=wanted)
        seen: list[tuple[bytes, bool]] = []
        while len(seen) < 3:
            packet, address = sniffer.recvfrom(65535)
            if packet.endswith(tuple(marks)) and address[2] == socket.PACKET_HOST:
                seen.append((packet[28:], bool(packet[6] & IPV4_DF)))
    assert seen == list(zip(marks, (False, True, False), strict=True))


def test_closing_one_family_leaves_the_other_open(world: RelayedWorld, client: FakeClient) -> None:
    allocation = world.started[0]
    world.sockets.close(allocation, 2)
    with peer_socket("127.0.0.1") as peer:
        client.send(peer.getsockname(), b"lives")
        assert peer.recv(100) == b"lives"
        client.send(("::1", 9999), b"gone")
        world.sockets.close_allocation(allocation)
        assert allocation.relayed_send is None


class RestsOnce(Moderation):
    """Rests after the first look."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.looks: list[int] = []

    def rest_seconds(self, taken: int, looked_seconds: float, now: float) -> float:
        self.looks.append(taken)
        return self.seconds if len(self.looks) == 1 else 0.0


@pytest.fixture
def endpoint() -> Iterator[socket.socket]:
    """A socket that clients send to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.bind(("127.0.0.1", 0))
        yield made


@pytest.mark.replaces_parts
def test_all_that_comes_while_the_thread_rests_is_taken_at_one_look(
    ring: Ring | None, endpoint: socket.socket
) -> None:
    def drain_clients() -> int:
        return len(endpoint.recv(100))

    with peer_socket("127.0.0.1") as peer:

        def sleep(seconds: float) -> None:
            world.now += seconds
            for number in range(5):  # to one relayed address
                peer.sendto(b"%d" % number, relayed)
            peer.sendto(b"four", endpoint.getsockname())

        moderation = RestsOnce()
        world = RelayedWorld(ring, moderation, sleep)
        client = world.client()
        client.request(Method.ALLOCATE, DUAL)
        client.bind(CHANNEL, peer.getsockname())
        client.send_channel(CHANNEL, b"out")
        _, relayed = peer.recvfrom(100)
        world.sockets.watch_clients(ENDPOINT, endpoint, drain_clients)
        peer.sendto(b"first", relayed)
        select.select([world.sockets], [], [], PATIENCE_SECONDS)
        world.sockets.drain()
        arrived = [client.receive()[1] for _ in range(6)]
        assert arrived == [b"first", *(b"%d" % number for number in range(5))]
        assert moderation.looks == [1, 5 + len(b"four")]
        world.sockets.close_all()


def test_clients_are_looked_at_before_the_peers_of_many(
    ring: Ring | None, endpoint: socket.socket
) -> None:
    world, looked = RelayedWorld(ring), []
    count = EVENTS_MAX + 50

    def drain_clients() -> int:
        looked.append(len(arrived()))
        return len(endpoint.recv(100))

    def arrived() -> list[FakeClient]:
        return [client for client in clients if client.arrived]

    with peer_socket("127.0.0.1") as peer:
        clients = [world.client(("192.0.2.7", 2000 + number)) for number in range(count)]
        for client in clients:
            client.allocate()
            client.bind(CHANNEL, peer.getsockname())
        for relayed in list(world.relayed):
            peer.sendto(b"data", relayed)
        world.sockets.watch_clients(ENDPOINT, endpoint, drain_clients)
        peer.sendto(b"request", endpoint.getsockname())
        select.select([world.sockets], [], [], PATIENCE_SECONDS)
        world.sockets.drain()
        assert looked == [0]
        assert len(arrived()) == count
    world.sockets.close_all()


@pytest.mark.replaces_parts
def test_turn_ends_in_time_whatever_waits(ring: Ring | None, endpoint: socket.socket) -> None:
    world = RelayedWorld(ring, RestsAlways(), lambda _: None)
    looks: list[float] = []

    def drain_clients() -> int:
        looks.append(world.now)
        world.now += TURN_SECONDS / 2
        return 1  # and leaves it there

    with peer_socket("127.0.0.1") as peer:
        world.sockets.watch_clients(ENDPOINT, endpoint, drain_clients)
        peer.sendto(b"more", endpoint.getsockname())
        select.select([world.sockets], [], [], PATIENCE_SECONDS)
        world.sockets.drain()
    assert len(looks) == 2
    world.sockets.close_all()


def bound_client(world: RelayedWorld, peer: socket.socket) -> tuple[FakeClient, SockAddress]:
    """A client with a channel to a peer, and its relayed address."""
    client = world.client()
    client.allocate()
    client.bind(CHANNEL, peer.getsockname())
    (relayed,) = world.relayed
    return client, relayed


class CountingRing(Ring):
    """An io_uring that counts how often sockets are told to receive."""

    told = 0

    def receive_from(self, endpoint: int, token: int, name_length: int) -> bool:
        self.told += 1
        return super().receive_from(endpoint, token, name_length)


@pytest.fixture
def counting() -> Iterator[CountingRing]:
    ring_or_skip().close()
    made = CountingRing()
    yield made
    made.close()


@pytest.mark.replaces_parts
def test_empty_datagrams_of_a_stranger_keep_nobody_waiting(counting: CountingRing) -> None:
    world = RelayedWorld(counting)
    with peer_socket("127.0.0.1") as peer, peer_socket("127.0.0.2") as stranger:
        client, relayed = bound_client(world, peer)
        for number in range(50):
            stranger.sendto(b"", relayed)
            peer.sendto(b"%d" % number, relayed)
        world.sockets.drain()
        assert [int(client.receive()[1]) for _ in range(50)] == list(range(50))
    world.sockets.close_all()


@pytest.mark.replaces_parts
def test_many_sockets_with_more_than_there_are_slots_are_told_a_few_times(
    counting: CountingRing,
) -> None:
    world = RelayedWorld(counting)
    sockets, each = 400, 10
    with peer_socket("127.0.0.1") as peer:
        clients = [world.client(("192.0.2.7", 2000 + number)) for number in range(sockets)]
        for client in clients:
            client.allocate()
            client.bind(CHANNEL, peer.getsockname())
        for number in range(each):
            for relayed in list(world.relayed):
                peer.sendto(b"%d" % number, relayed)
        told = counting.told
        world.drain_until(lambda: all(len(client.arrived) == each for client in clients))
        assert counting.told - told < sockets * each / 4
        for client in clients:
            assert [int(client.receive()[1]) for _ in range(each)] == list(range(each))
    world.sockets.close_all()


@pytest.mark.replaces_parts
def test_fault_of_one_datagram_stops_no_socket(
    counting: CountingRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = RelayedWorld(counting)
    with peer_socket("127.0.0.1") as peer, peer_socket("127.0.0.2") as stranger:
        client, relayed = bound_client(world, peer)
        receive = world.turn.receive_from_peer

        def fail(*arguments: Any) -> Any:
            if arguments[1] == b"fault":
                raise ValueError("a fault")
            return receive(*arguments)

        monkeypatch.setattr(world.turn, "receive_from_peer", fail)
        for _ in range(3 * SLOTS):
            for data in (b"fault", b""):
                stranger.sendto(data, relayed)
            with contextlib.suppress(ValueError):
                world.sockets.drain()
        peer.sendto(b"data", relayed)
        world.drain_until(lambda: bool(client.arrived))
        assert client.receive()[1] == b"data"
    world.sockets.close_all()


class RestsAlways(Moderation):
    """Rests after each look."""

    def __init__(self) -> None:
        super().__init__(TURN_SECONDS / 4)

    def rest_seconds(self, taken: int, looked_seconds: float, now: float) -> float:
        return self.seconds
