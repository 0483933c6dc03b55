"""The relayed sockets: one for each relayed address, watched by one epoll of their own.

The event loop watches that epoll's descriptor only. Ten thousand sockets then cost the loop one
handle, and one system call tells which of them have data. The sockets that clients send datagrams
to are watched with them: one look finds what came in both directions.

ICMP errors about what was sent wait in a queue of the socket (IP_RECVERR) and are passed on to the
client.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from relay.core.addresses import FAMILY_IPV4, FAMILY_IPV6, SockAddress, host_family
from relay.core.allocation import Allocation, RelayedAddress
from relay.core.channeldata import CHANNELDATA_HEADER, HEADER_LENGTH
from relay.core.effects import SendToClient
from relay.core.turn import DROPPED, TurnServer
from relay.transports.descriptors import kept_refuse
from relay.transports.fragmentation import DF_CLEAR, DF_SET, SocketOption
from relay.transports.moderation import Moderation
from relay.transports.packet_filters import filter_attach, filter_detach, nothing_passes
from relay.transports.receiver import ROUNDS_MAX, RingReceiver
from relay.transports.rings import Ring
from relay.transports.sending import data_send, message_send

DATAGRAM_LENGTH_MAX = 65535
# The plain class that socket.socket is made of: smaller, and made in half the time.
DATAGRAMS = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
EPOLLIN = select.EPOLLIN
EVENTS_MAX = 256
ERRORS_ONLY = 0  # epoll tells them whatever it is asked
SEVERAL = 8
# So long it takes in what waits, until the event loop has its turn.
TURN_SECONDS = 0.005

# From <linux/errqueue.h>, <linux/in.h> and <linux/in6.h>; the module `socket` lacks them.
MSG_ERRQUEUE = 0x2000
EXTENDED_ERROR = Struct("=IBBBBII")  # errno, origin, type, code, padding, info (an MTU), data
ORIGIN_ICMP = 2
ORIGIN_ICMP6 = 3
ERRORS_MAX = 64
ERROR_BYTES_MAX = 256
IP_RECVERR = 11
IPV6_RECVERR = 25


# Takes in what clients have sent; returns how many datagrams of data that were.
DrainClients = Callable[[], int]


class FamilyOptions(NamedTuple):
    """Socket options of a family.

    Attributes:
        at_start: what is set before it is bound.
        tell_errors: have ICMP errors wait; not where nobody takes them: anybody may send some.
    """

    family: socket.AddressFamily
    at_start: SocketOption
    tell_errors: SocketOption
    dont_fragment: SocketOption
    may_fragment: SocketOption


OPTIONS = {
    FAMILY_IPV4: FamilyOptions(
        family=socket.AF_INET,
        at_start=DF_CLEAR,
        tell_errors=(socket.IPPROTO_IP, IP_RECVERR, 1),
        dont_fragment=DF_SET,
        may_fragment=DF_CLEAR,
    ),
    FAMILY_IPV6: FamilyOptions(
        family=socket.AF_INET6,
        at_start=(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1),
        tell_errors=(socket.IPPROTO_IPV6, IPV6_RECVERR, 1),
        dont_fragment=(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1),
        may_fragment=(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 0),
    ),
}


def _bound(sockaddr: SockAddress, program: bytes = b"") -> socket.SocketType:
    """A socket at an address; behind a packet filter, where there is a program for one.

    Raises:
        OSError: the port is in use, or there are no more descriptors or memory for it.
    """
    options = OPTIONS[host_family(sockaddr[0])]
    made = socket.SocketType(options.family, DATAGRAMS)
    try:
        kept_refuse(made.fileno())
        made.setsockopt(*options.at_start)
        if program:
            filter_attach(made, program)
        made.bind(sockaddr)
    except OSError:
        made.close()
        raise
    return made


class RelayedSockets:
    """Opens, reads and closes the sockets at the relayed transport addresses.

    Args:
        moderation: how long to rest after a look at the sockets.
        sleep: does nothing for so many seconds.
        ring: what receives and sends for them; None: they are read one by one.
    """

    def __init__(
        self,
        turn: TurnServer,
        perform: Callable[[SendToClient], None],
        clock: Callable[[], float],
        moderation: Moderation,
        ring: Ring | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._turn = turn
        self._moderation = moderation
        self._sleep = sleep
        self._rests_until = 0.0
        self._perform = perform
        self._clock = clock
        self._epoll = select.epoll()
        # Asked before the other one, lest clients wait for thousands of peers; it only wakes.
        self._clients_epoll = select.epoll()
        self._epoll.register(self._clients_epoll, EPOLLIN)
        nothing: list[tuple[int, int]] = []
        self._nothing = nothing, [(self._clients_epoll.fileno(), EPOLLIN)]
        self._by_descriptor: dict[int, tuple[socket.SocketType, Allocation]] = {}
        self._sockets: dict[tuple[int, int], socket.SocketType] = {}  # by allocation id and family
        self._reserved: dict[SockAddress, socket.SocketType] = {}  # bound, and deaf
        self._drain_clients: dict[int, DrainClients] = {}  # by descriptor
        # Data is received behind the room for a ChannelData header: nothing is copied.
        self._buffer = bytearray(HEADER_LENGTH + DATAGRAM_LENGTH_MAX)
        self._view = memoryview(self._buffer)
        self._body = self._view[HEADER_LENGTH:]
        self._receiver: RingReceiver | None = None
        if ring is not None:
            self._receiver = RingReceiver(ring, turn, self._indicate, clock)
            self._epoll.register(ring.events, EPOLLIN | select.EPOLLET)

    def fileno(self) -> int:
        """What the event loop watches."""
        return self._epoll.fileno()

    def watch_clients(
        self, address: SockAddress, endpoint: socket.socket, drain: DrainClients
    ) -> None:
        """Watch a socket that clients send to, and drain it when it has something."""
        self._drain_clients[endpoint.fileno()] = drain
        if self._receiver is not None:
            self._receiver.endpoints[address] = endpoint.fileno()
        self._clients_epoll.register(endpoint, EPOLLIN)

    def open(
        self, allocation: Allocation, relayed: RelayedAddress, reserved: SockAddress | None
    ) -> None:
        """Bind a relayed address and watch it, and bind the one that is reserved with it, if any.

        Raises:
            OSError: a port is in use, or there are no more descriptors or memory for it.
        """
        opened = self._reserved.pop(relayed.sockaddr, None)
        if opened is None:
            opened = _bound(relayed.sockaddr)
        else:
            filter_detach(opened)
        descriptor = opened.fileno()
        try:
            opened.setsockopt(*OPTIONS[relayed.family].tell_errors)
            self._epoll.register(descriptor, EPOLLIN if self._receiver is None else ERRORS_ONLY)
            if reserved is not None:
                self._reserved[reserved] = _bound(reserved, nothing_passes())
        except OSError:
            opened.close()
            raise
        self._by_descriptor[descriptor] = opened, allocation
        self._sockets[allocation.id, relayed.family] = opened
        if self._receiver is not None:
            self._receiver.open(descriptor, allocation, relayed.family)
        self._route(allocation)

    def _route(self, allocation: Allocation) -> None:
        """Set how data of this allocation is sent: by its one socket, or by that of the family."""
        ipv4 = self._sockets.get((allocation.id, FAMILY_IPV4))
        ipv6 = self._sockets.get((allocation.id, FAMILY_IPV6))
        if ipv4 is not None and ipv6 is not None:
            allocation.relayed_descriptor = -1
            by_family = {FAMILY_IPV4: ipv4.sendto, FAMILY_IPV6: ipv6.sendto}
            allocation.relayed_send = lambda data, peer: by_family[host_family(peer[0])](data, peer)
        else:
            only = ipv4 or ipv6
            allocation.relayed_send = None if only is None else only.sendto
            allocation.relayed_descriptor = -1 if only is None else only.fileno()

    def send(
        self, allocation: Allocation, data: bytes, peer: SockAddress, *, dont_fragment: bool
    ) -> None:
        """Send to a peer from an allocation's relayed address, and count it."""
        family = host_family(peer[0])
        used = self._sockets.get((allocation.id, family))
        if used is None:
            return
        options = OPTIONS[family]
        if dont_fragment:
            used.setsockopt(*options.dont_fragment)
        data_send(self._turn, allocation, used.sendto, data, peer)
        if dont_fragment:
            used.setsockopt(*options.may_fragment)

    def close(self, allocation: Allocation, family: int) -> None:
        """Close the socket of one family; nothing more comes in on it."""
        closed = self._sockets.pop((allocation.id, family), None)
        if closed is None:
            return
        self._route(allocation)
        del self._by_descriptor[closed.fileno()]
        self._epoll.unregister(closed)
        closed.close()
        if self._receiver is not None:
            self._receiver.close(allocation, family)

    def close_reserved(self, reserved: SockAddress) -> None:
        """Hold a reserved address no longer; nothing where it is not held."""
        held = self._reserved.pop(reserved, None)
        if held is not None:
            held.close()

    def close_allocation(self, allocation: Allocation) -> None:
        """Close what an allocation has open."""
        for family in OPTIONS:
            self.close(allocation, family)

    def close_all(self) -> None:
        """Close what is still open, and the epoll."""
        for relayed, _ in self._by_descriptor.values():
            relayed.close()
        for reserved in self._reserved.values():
            reserved.close()
        if self._receiver is not None:
            self._receiver.close_all()
        self._clients_epoll.close()
        self._epoll.close()

    def drain(self) -> None:
        """Take in what waits: the reader callback of the event loop, which has its turn in time."""
        try:
            self._turn_take()
        finally:
            if self._receiver is not None:
                self._errors_look(self._clock())
                self._receiver.leave()

    def _turn_take(self) -> None:
        began = self._clock()
        ends_at = began + TURN_SECONDS
        while True:
            rested = began < self._rests_until  # begun in an earlier turn, perhaps
            if rested:
                self._sleep(self._rests_until - began)
                began = self._clock()
            taken = self._look(began + TURN_SECONDS, rested=rested)
            now = self._clock()
            rest_seconds = self._moderation.rest_seconds(taken, now - began, now)
            self._rests_until = now + rest_seconds
            if not rest_seconds or now >= ends_at:
                return
            began = now

    def _look(self, ends_at: float, *, rested: bool) -> int:
        """Take what clients have sent, then a datagram of each relayed socket.

        Where much has gathered that goes on until they are empty: a picture is 30 datagrams to one
        of them. Returns how many datagrams of data came; a stranger's do not count.
        """
        taken = self._clients_drain(ends_at)
        if self._receiver is not None:
            return taken + self._receiver.receive(ends_at)
        for _ in range(ROUNDS_MAX):
            now = self._clock()
            events = self._epoll.poll(0, EVENTS_MAX)
            taken += self._receive(events, now)
            much = rested or taken >= SEVERAL or len(events) >= SEVERAL
            if not much or now >= ends_at or events in self._nothing:
                break
        return taken

    def _clients_drain(self, ends_at: float) -> int:
        taken = 0
        for descriptor, _ in self._clients_epoll.poll(0):
            taken += self._drain_clients[descriptor]()
            if self._clock() >= ends_at:
                break
        return taken

    def _errors_look(self, now: float) -> None:
        """Where a ring receives the epoll tells errors only, and that the ring has something."""
        for descriptor, _ in self._epoll.poll(0, EVENTS_MAX):
            entry = self._by_descriptor.get(descriptor)
            if entry is not None:
                self._errors_take(*entry, now)

    def _receive(self, events: list[tuple[int, int]], now: float) -> int:
        """Take one datagram of each relayed socket; how many were passed on.

        What has a channel is passed on right here.
        """
        find, buffer, view, body = self._by_descriptor.get, self._buffer, self._view, self._body
        forward, taken = self._turn.forward_from_peer, 0
        for descriptor, mask in events:
            entry = find(descriptor)
            if entry is None:  # that of the clients, or closed by an earlier event of this round
                continue
            relayed, allocation = entry
            if mask != EPOLLIN:
                self._errors_take(relayed, allocation, now)
            try:
                length, peer = relayed.recvfrom_into(body)
            except OSError:
                continue
            if len(peer) != 2:  # an IPv6 socket adds flow information and scope
                peer = peer[:2]
            bound = allocation.channel_by_peer.get(peer)
            channel = forward(allocation, bound, buffer, HEADER_LENGTH, length, now)
            send = allocation.client_send
            if channel <= 0 or send is None:
                if channel != DROPPED:
                    taken += self._indicate(allocation, bytes(body[:length]), peer, now)
                continue
            CHANNELDATA_HEADER.pack_into(buffer, 0, channel, length)
            taken += message_send(self._turn, allocation, send, view[: HEADER_LENGTH + length])
        return taken

    def _errors_take(self, relayed: socket.SocketType, allocation: Allocation, now: float) -> None:
        """Pass on the ICMP errors that wait at a socket; of what was sent, nothing is read."""
        for _ in range(ERRORS_MAX):
            try:
                _, ancillary, _, peer = relayed.recvmsg(0, ERROR_BYTES_MAX, MSG_ERRQUEUE)
            except OSError:
                return
            for _, _, value in ancillary:
                _, origin, icmp_type, code, _, mtu, _ = EXTENDED_ERROR.unpack_from(value)
                if origin in (ORIGIN_ICMP, ORIGIN_ICMP6):
                    effect = self._turn.receive_icmp(
                        allocation, peer[:2], (icmp_type, code, mtu), now
                    )
                    if effect is not None:
                        self._perform(effect)

    def _indicate(self, allocation: Allocation, data: bytes, peer: SockAddress, now: float) -> bool:
        """Pass on what has no channel; whether that was allowed."""
        effect = self._turn.receive_from_peer(allocation, data, peer, now)
        if effect is None:
            return False
        self._perform(effect)
        return True
