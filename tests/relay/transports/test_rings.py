"""io_uring on loopback: what sockets receive, what orders send, and what goes wrong."""

from __future__ import annotations

import errno
import resource
import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from relay.core.allocation import Route
from relay.transports.batches import SLOT_BYTES, name_decode
from relay.transports.rings import (
    COMPLETIONS,
    CQE_BUFFER,
    CQE_MORE,
    CQE_SLOT_SHIFT,
    ENTRIES,
    ENTRIES_MASK,
    NAME_LENGTHS,
    RECEIVES,
    SEND,
    SEND_FLAGS,
    SEND_PLACES,
    SLOT_NAME_AT,
    SLOTS,
    Ring,
    RingUnavailableError,
    route_make,
)
from tests.relay.rings import ring_or_skip

HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
PATIENCE_SECONDS = 30
TOKEN = RECEIVES + 5


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = ring_or_skip()
    yield made
    made.close()


@contextmanager
def bound(family: socket.AddressFamily = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind((HOSTS[family], 0))
        yield made


def name_length_of(endpoint: socket.socket) -> int:
    return NAME_LENGTHS[endpoint.family == socket.AF_INET6]


def received(ring: Ring, name_length: int) -> list[tuple[int, bytes, bytes, bool]]:
    """Of all that was gathered: token, datagram, who sent it, and whether it goes on."""
    found = []
    while ring.has_work:
        used = 0
        for token, length, flags in ring.gather():
            assert flags & CQE_BUFFER, "there was a slot"
            used += 1
            at = (flags >> CQE_SLOT_SHIFT) * SLOT_BYTES + SLOT_NAME_AT
            length -= SLOT_NAME_AT
            slot = ring.slots[at : at + length]
            name = slot[: 8 if name_length == NAME_LENGTHS[0] else name_length]
            found.append((token, slot[name_length:], name, bool(flags & CQE_MORE)))
        ring.slots_return(used)
    return found


def order(ring: Ring, count: int, route: Route) -> None:
    """Write orders to send whatever lies in the slots, each as long as its number."""
    descriptor, peer_at, _ = route
    for number in range(count):
        place = SEND_PLACES[(ring.tail + number) & ENTRIES_MASK]
        values = descriptor, peer_at, ring.slots_at, number, SEND_FLAGS, number
        SEND.pack_into(ring.entries, place, *values)


@pytest.mark.parametrize("length", [1, 160, 1200, 65507])
@pytest.mark.parametrize("family", HOSTS)
def test_datagrams_come_whole_with_who_sent_them(
    ring: Ring, family: socket.AddressFamily, length: int
) -> None:
    with bound(family) as endpoint, bound(family) as peer:
        ring.receive_from(endpoint.fileno(), TOKEN, name_length_of(endpoint))
        for number in range(1, 4):
            peer.sendto(bytes([number]) * length, endpoint.getsockname())
        found = received(ring, name_length_of(endpoint))
        assert [(token, data) for token, data, _, _ in found] == [
            (TOKEN, bytes([number]) * length) for number in range(1, 4)
        ]
        assert {name_decode(name) for _, _, name, _ in found} == {peer.getsockname()[:2]}
        assert all(goes_on for _, _, _, goes_on in found)


def test_empty_datagram_comes_too_and_ends_it(ring: Ring) -> None:
    with bound() as endpoint, bound() as peer:
        for data in (b"", b"data"):
            peer.sendto(data, endpoint.getsockname())
        for data, goes_on in ((b"", False), (b"data", True)):
            ring.receive_from(endpoint.fileno(), TOKEN, NAME_LENGTHS[0])
            ((_, found, _, more),) = received(ring, NAME_LENGTHS[0])
            assert (found, more) == (data, goes_on)


def test_slots_are_used_again_in_their_order(ring: Ring) -> None:
    with bound() as endpoint, bound() as peer:
        ring.receive_from(endpoint.fileno(), TOKEN, NAME_LENGTHS[0])
        count = 2 * COMPLETIONS + SLOTS // 2  # and completions come round, too
        sent = deque(b"%d" % number for number in range(count))
        expected, found = list(sent), []
        while sent:
            for _ in range(min(7, len(sent))):
                peer.sendto(sent.popleft(), endpoint.getsockname())
            found += [data for _, data, _, _ in received(ring, NAME_LENGTHS[0])]
        assert found == expected


def test_socket_that_stops_for_want_of_a_slot_loses_nothing(ring: Ring) -> None:
    with bound() as endpoint, bound() as peer:
        ring.receive_from(endpoint.fileno(), TOKEN, NAME_LENGTHS[0])
        count = 2 * SLOTS + 1
        for number in range(count):
            peer.sendto(b"%d" % number, endpoint.getsockname())
        found: list[bytes] = []
        for _ in range(3):
            used = 0
            while ring.has_work:
                for _, length, flags in ring.gather():
                    if flags & CQE_BUFFER:
                        used += 1
                        at = (flags >> CQE_SLOT_SHIFT) * SLOT_BYTES
                        found.append(ring.slots[at + SLOT_NAME_AT + NAME_LENGTHS[0] : at + length])
                    else:
                        assert (length, flags & CQE_MORE) == (-errno.ENOBUFS, 0)
            assert used == min(SLOTS, count - len(found) + used)
            ring.slots_return(used)
            if len(found) < count:
                ring.receive_from(endpoint.fileno(), TOKEN, NAME_LENGTHS[0])
        assert found == [b"%d" % number for number in range(count)]


def test_what_comes_is_told(ring: Ring) -> None:
    with bound() as endpoint, bound() as peer, select.epoll() as told:
        told.register(ring.events, select.EPOLLIN | select.EPOLLET)
        ring.receive_from(endpoint.fileno(), TOKEN, NAME_LENGTHS[0])
        told.poll(0)
        for _ in range(3):
            peer.sendto(b"data", endpoint.getsockname())
            assert told.poll(PATIENCE_SECONDS)
            assert ring.has_work
            assert len(received(ring, NAME_LENGTHS[0])) == 1
            assert received(ring, NAME_LENGTHS[0]) == []
            told.poll(0)  # of the completion itself
        ring.wake()
        assert told.poll(0)


def test_gather_that_leaves_something_says_so(ring: Ring) -> None:
    with ExitStack() as stack, bound() as peer:
        endpoints = [stack.enter_context(bound()) for _ in range(SLOTS - 1)]
        for number, endpoint in enumerate(endpoints):
            ring.receive_from(endpoint.fileno(), TOKEN + number, NAME_LENGTHS[0])
        for endpoint in endpoints:
            peer.sendto(b"data", endpoint.getsockname())
        tokens, goes_on = [], True
        while goes_on:
            tokens += [token for token, _, _ in ring.gather()]
            goes_on = ring.has_left
        assert tokens == [TOKEN + number for number in range(SLOTS - 1)]


def test_closed_socket_gives_its_port_back(ring: Ring) -> None:
    for _ in range(3):
        with bound() as endpoint:
            port = endpoint.getsockname()[1]
            ring.receive_from(endpoint.fileno(), TOKEN, NAME_LENGTHS[0])
        ring.receive_end(TOKEN)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind((HOSTS[socket.AF_INET], port))
        assert [flags & CQE_MORE for _, _, flags in ring.gather()] == [0]


@pytest.mark.parametrize("family", HOSTS)
def test_orders_are_carried_out_in_their_order(ring: Ring, family: socket.AddressFamily) -> None:
    with bound(family) as endpoint, bound(family) as peer:
        route = route_make(endpoint.fileno(), peer.getsockname()[:2])
        for _ in range(3):  # orders come round
            for count in (1, ENTRIES // 2, ENTRIES):
                order(ring, count, route)
                assert ring.submit(count) == ()
                lengths = [len(peer.recv(1000)) for _ in range(count)]
                assert lengths == list(range(count))


def test_orders_that_fail_are_told_and_the_others_carried_out(ring: Ring) -> None:
    with bound() as endpoint, bound() as peer, bound() as receives:
        ring.receive_from(receives.fileno(), TOKEN, NAME_LENGTHS[0])
        route = route_make(endpoint.fileno(), peer.getsockname())
        order(ring, 5, route)
        place = SEND_PLACES[(ring.tail + 2) & ENTRIES_MASK]
        descriptor, peer_at, data_at, _, flags, token = SEND.unpack_from(ring.entries, place)
        SEND.pack_into(ring.entries, place, descriptor, peer_at, data_at, 65508, flags, token)
        peer.sendto(b"meanwhile", receives.getsockname())
        assert list(ring.submit(5)) == [(2, -errno.EMSGSIZE, 0)]
        assert [len(peer.recv(1000)) for _ in range(4)] == [0, 1, 3, 4]
        assert [data for _, data, _, _ in received(ring, NAME_LENGTHS[0])] == [b"meanwhile"]


def test_full_socket_is_told_and_not_waited_for(ring: Ring) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        place = SEND_PLACES[ring.tail & ENTRIES_MASK]
        failed: list[tuple[int, int, int]] = []
        for _ in range(10_000):
            SEND.pack_into(ring.entries, place, left.fileno(), 0, ring.slots_at, 1, SEND_FLAGS, 7)
            place = SEND_PLACES[(ring.tail + 1) & ENTRIES_MASK]
            failed += ring.submit(1)
            if failed:
                break
        assert failed[0][0] == 7


def test_ring_that_cannot_be_had_says_why() -> None:
    ring_or_skip().close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(RingUnavailableError, match="Too many open files"):
            Ring()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_close_lets_go_of_the_sockets_that_receive(ring: Ring) -> None:
    other = ring_or_skip()
    with bound() as endpoint:
        port = endpoint.getsockname()[1]
        other.receive_from(endpoint.fileno(), TOKEN, NAME_LENGTHS[0])
    other.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        for _ in range(PATIENCE_SECONDS * 100):
            try:
                again.bind((HOSTS[socket.AF_INET], port))
            except OSError:
                select.select([], [], [], 0.01)
            else:
                break
        assert again.getsockname()[1] == port
