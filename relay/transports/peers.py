"""TCP connections with peers, and their splices with clients' data connections (RFC 6062).

    client ══ StreamConnection ══ Splice ══ socket ══ peer

Nothing piles up: while one side does not take what it was sent, the other one is not read.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from relay.core.addresses import FAMILY_IPV4, FAMILY_IPV6, SockAddress, host_family
from relay.core.allocation import Allocation, RelayedAddress
from relay.core.connections import PeerConnection
from relay.core.effects import Effect
from relay.core.gate import Gate
from relay.core.turn import TurnServer
from relay.transports.descriptors import is_kept, kept_refuse
from relay.transports.stream import StreamConnection

FAMILIES = FAMILY_IPV4, FAMILY_IPV6
LISTEN_BACKLOG = 16
ACCEPT_MAX = 16
EVENTS_MAX = 64
RECEIVE_LENGTH = 1 << 16
PAUSE_SECONDS = 0.02  # between two looks at who rests


class Splice:
    """A peer's socket, and the client's connection once it is bound.

    Attributes:
        connected: the peer has accepted, or has come by itself.
        backlog: what the peer has not taken yet.
        paused_until: unix seconds; the allocation's bitrate is used up until about then.
        paused_by: the gate that says so; with another one, or none, it says nothing any more.
    """

    __slots__ = (
        "backlog",
        "client",
        "connected",
        "connection",
        "owner",
        "paused_by",
        "paused_until",
        "socket",
    )

    def __init__(self, owner: PeerStreams, peer: socket.socket) -> None:
        self.owner = owner
        self.socket = peer
        self.connection: PeerConnection | None = None
        self.client: StreamConnection | None = None
        self.connected = False
        self.backlog = bytearray()
        self.paused_until = 0.0
        self.paused_by: Gate | None = None

    def from_client(self, data: memoryview) -> None:
        """Pass on what the client sends."""
        self.owner.from_client(self, data)

    def client_has_room(self) -> None:
        """The client has taken all that waited: read the peer again."""
        self.owner.watch(self)

    def client_took(self, length: int) -> None:
        """Count what the client took later."""
        if self.connection is not None:
            self.connection.allocation.client_sent_bytes += length

    def rests_no_more(self, now: float) -> bool:
        """Whether what it rested for is over: the time, or the limit."""
        connection = self.connection
        gate = None if connection is None else connection.allocation.gate
        return self.paused_until <= now or self.paused_by is not gate

    @property
    def client_is_read(self) -> bool:
        """Whether the client may send more."""
        return not self.backlog and not self.paused_until


class PeerStreams:
    """Listens at relayed addresses, connects, accepts and splices; one epoll for all."""

    def __init__(
        self,
        turn: TurnServer,
        perform: Callable[[list[Effect]], None],
        client_find: Callable[[PeerConnection], StreamConnection | None],
        client_read: Callable[[StreamConnection], None],
        client_close: Callable[[StreamConnection], None],
        clock: Callable[[], float],
    ) -> None:
        """Begin with no socket.

        Args:
            turn: the core.
            perform: carries out its effects.
            client_find: the client's data connection of a connection that is bound.
            client_read: reads it, or does not, as its splice says.
            client_close: closes it once what waits for the client is sent.
            clock: steady seconds.
        """
        self._turn = turn
        self._perform = perform
        self._client_find = client_find
        self._client_read = client_read
        self._client_close = client_close
        self._clock = clock
        self._epoll = select.epoll()
        self._listeners: dict[int, tuple[socket.socket, Allocation]] = {}
        self._listening: dict[tuple[int, int], socket.socket] = {}  # by allocation id and family
        self._splices: dict[int, Splice] = {}  # by descriptor
        self._by_connection: dict[int, Splice] = {}
        self._by_allocation: dict[int, set[int]] = {}  # ids of its connections
        self._paused: set[Splice] = set()
        self._resting: list[socket.socket] = []  # listeners
        self._buffer = memoryview(bytearray(RECEIVE_LENGTH))

    def __len__(self) -> int:
        return len(self._by_connection)

    def fileno(self) -> int:
        """What the event loop watches."""
        return self._epoll.fileno()

    @property
    def has_any(self) -> bool:
        """Whether there is a TCP allocation."""
        return bool(self._listening)

    # --- beginning --------------------------------------------------------------------------------

    def listen(self, allocation: Allocation, relayed: RelayedAddress) -> None:
        """Listen at a relayed address.

        Raises:
            OSError: the port is in use, or there are no more descriptors or memory for it.
        """
        opened = _socket(relayed.sockaddr)
        try:
            kept_refuse(opened.fileno())
            opened.bind(relayed.sockaddr)
            opened.listen(LISTEN_BACKLOG)
            self._epoll.register(opened, select.EPOLLIN)
        except OSError:
            opened.close()
            raise
        self._listeners[opened.fileno()] = opened, allocation
        self._listening[allocation.id, relayed.family] = opened

    def connect(self, connection: PeerConnection) -> None:
        """Connect to a peer from the relayed address."""
        relayed = connection.allocation.relayed[host_family(connection.peer[0])]
        try:
            opened = _connect(relayed.sockaddr, connection.peer)
        except OSError:
            self._perform(self._turn.connection_lost(connection))
            return
        self._enter(opened, connection)

    def _enter(self, opened: socket.socket, connection: PeerConnection) -> Splice:
        splice = Splice(self, opened)
        splice.connection = connection
        self._splices[opened.fileno()] = splice
        self._by_connection[connection.id] = splice
        self._by_allocation.setdefault(connection.allocation.id, set()).add(connection.id)
        self._epoll.register(opened, select.EPOLLOUT)
        return splice

    def _accept(self, listener: socket.socket, allocation: Allocation) -> None:
        for _ in range(ACCEPT_MAX):
            try:
                accepted, address = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError:  # no descriptor is left: `wake` tries again
                self._epoll.modify(listener, 0)
                self._resting.append(listener)
                return
            if is_kept(accepted.fileno()):
                self._turn.dropped["connection refused"] += 1
                accepted.close()
                continue
            made = self._turn.peer_accepted(allocation, address[:2], self._clock())
            if made is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            connection, attempt = made
            splice = self._enter(accepted, connection)
            splice.connected = True
            self.watch(splice)
            self._perform([attempt])

    def bind(self, connection: PeerConnection) -> None:
        """Join a peer with the client's data connection."""
        splice = self._by_connection.get(connection.id)
        client = self._client_find(connection)
        if splice is None or client is None:
            self._perform(self._turn.connection_lost(connection))
            return
        splice.client = client
        client.splice = splice
        self.watch(splice)

    # --- end --------------------------------------------------------------------------------------

    def close(self, connection: PeerConnection) -> None:
        """Close the peer's socket, and the client's data connection once that has all."""
        splice = self._by_connection.pop(connection.id, None)
        if splice is None:
            return
        others = self._by_allocation[connection.allocation.id]
        others.remove(connection.id)
        if not others:
            del self._by_allocation[connection.allocation.id]
        del self._splices[splice.socket.fileno()]
        self._paused.discard(splice)
        self._epoll.unregister(splice.socket)
        if splice.backlog:  # a last try; the kernel sends on what it has taken
            _send(splice)
        splice.socket.close()
        if splice.client is not None:
            client, splice.client = splice.client, None
            connection.allocation.client_sent_bytes += client.uncounted_take()
            client.splice = None
            self._client_close(client)

    def close_relayed(self, allocation: Allocation, family: int) -> None:
        """Listen no more at the relayed address of one family."""
        listener = self._listening.pop((allocation.id, family), None)
        if listener is not None:
            del self._listeners[listener.fileno()]
            self._epoll.unregister(listener)
            listener.close()

    def close_allocation(self, allocation: Allocation) -> None:
        """Close everything of an allocation."""
        for number in list(self._by_allocation.get(allocation.id, ())):
            connection = self._by_connection[number].connection
            if connection is not None:
                self.close(connection)
        for family in FAMILIES:
            self.close_relayed(allocation, family)

    def close_all(self) -> None:
        """Close what is still open, and the epoll."""
        for splice in self._splices.values():
            splice.socket.close()
        for listener, _ in self._listeners.values():
            listener.close()
        self._epoll.close()

    # --- data -------------------------------------------------------------------------------------

    def watch(self, splice: Splice) -> None:
        """Read the peer while the client takes what it sends; write while something waits."""
        client = splice.client
        reading = client is not None and not client.backlog_bytes and not splice.paused_until
        events = select.EPOLLOUT if splice.backlog or not splice.connected else 0
        self._epoll.modify(splice.socket, events | (select.EPOLLIN if reading else 0))
        if client is not None:
            self._client_read(client)

    def drain(self) -> None:
        """Take in what waits: the reader callback of the event loop."""
        for descriptor, mask in self._epoll.poll(0, EVENTS_MAX):
            if descriptor in self._listeners:
                self._accept(*self._listeners[descriptor])
            elif descriptor in self._splices:  # else closed by an earlier event
                self._event(self._splices[descriptor], mask)

    def _event(self, splice: Splice, mask: int) -> None:
        assert splice.connection is not None
        if not splice.connected:
            self._connect_end(splice)
            return
        if mask & select.EPOLLOUT and not _send(splice):
            self._perform(self._turn.connection_lost(splice.connection))
        elif mask & select.EPOLLIN:
            self._from_peer(splice)
        elif mask & (select.EPOLLHUP | select.EPOLLERR):
            self._perform(self._turn.connection_lost(splice.connection))
        else:
            self.watch(splice)

    def _connect_end(self, splice: Splice) -> None:
        assert splice.connection is not None
        if splice.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._perform(self._turn.connection_lost(splice.connection))
            return
        splice.connected = True
        self.watch(splice)
        self._perform(self._turn.peer_connected(splice.connection, self._clock()))

    def _from_peer(self, splice: Splice) -> None:
        connection, client = splice.connection, splice.client
        if connection is None or client is None:
            return
        try:
            length = splice.socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            length = 0
        if not length:
            self._perform(self._turn.connection_lost(connection))
            return
        allocation = connection.allocation
        allocation.peer_received_bytes += length
        allocation.client_sent_bytes += client.send_raw(self._buffer[:length])
        self._rate_check(splice, length, from_client=False)
        self.watch(splice)

    def from_client(self, splice: Splice, data: memoryview) -> None:
        """Pass on what a client sends."""
        connection = splice.connection
        if connection is None:
            return
        allocation = connection.allocation
        allocation.client_received_bytes += len(data)
        splice.backlog += data
        if not _send(splice):
            self._perform(self._turn.connection_lost(connection))
            return
        self._rate_check(splice, len(data), from_client=True)
        self.watch(splice)

    # --- bitrate ----------------------------------------------------------------------------------

    def _rate_check(self, splice: Splice, length: int, *, from_client: bool) -> None:
        """Rest when the bitrate is used up: a stream cannot do without what would be dropped."""
        connection = splice.connection
        gate = None if connection is None else connection.allocation.gate
        if gate is None:
            return
        now = self._clock()
        passage = gate.from_client if from_client else gate.from_peer
        seconds = passage.rest(length, now)
        if seconds > 0.0:
            splice.paused_until, splice.paused_by = now + seconds, gate
            self._paused.add(splice)

    def wake(self) -> None:
        """Look again at those who rest: to be called every so often."""
        now = self._clock()
        for listener in self._resting:
            if listener.fileno() in self._listeners:  # else closed meanwhile
                self._epoll.modify(listener, select.EPOLLIN)
        self._resting.clear()
        for splice in [found for found in self._paused if found.rests_no_more(now)]:
            self._paused.discard(splice)
            splice.paused_until, splice.paused_by = 0.0, None
            self.watch(splice)


def _socket(address: SockAddress) -> socket.socket:
    """A socket that can share its port: one listens there while others connect from it."""
    ipv6 = host_family(address[0]) == FAMILY_IPV6
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if ipv6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _connect(address: SockAddress, peer: SockAddress) -> socket.socket:
    """A socket that is about to be connected from `address`.

    Raises:
        OSError: it cannot be, or there are no more descriptors; nothing is left open.
    """
    opened = _socket(address)
    try:
        kept_refuse(opened.fileno())
        opened.bind(address)
        opened.connect(peer)
    except BlockingIOError:
        pass
    except OSError:
        opened.close()
        raise
    return opened


def _send(splice: Splice) -> bool:
    """Send what waits, as far as the peer takes it; False where it is gone."""
    try:
        sent = splice.socket.send(splice.backlog)
        del splice.backlog[:sent]
        if splice.connection is not None:
            splice.connection.allocation.peer_sent_bytes += sent
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True
