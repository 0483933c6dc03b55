"""TCP and TLS for clients: listeners and connections, watched by one epoll of their own.

A connection whose client has no allocation is a stranger's: strangers are few, must say something
whole soon, and go where they say nothing more. With an allocation a connection lives as long.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address

from relay.config import ClientLimits
from relay.core.addresses import FiveTuple, SockAddress, host_pack
from relay.core.errors import MalformedMessageError
from relay.core.framing import MESSAGE_LENGTH_MAX
from relay.core.turn import TurnServer
from relay.transports.certificates import Certificate
from relay.transports.descriptors import is_kept
from relay.transports.messages import ClientMessages, Perform
from relay.transports.proxy_protocol import proxy_header_read
from relay.transports.stream import (
    RECEIVE_LENGTH,
    TLS_HANDSHAKE,
    StreamConnection,
    StreamEndedError,
    TlsEnd,
)

TCP, TLS = "tcp", "tls"
ACCEPT_MAX = 32
EVENTS_MAX = 64
# After this long the event loop gets its turn; a TLS handshake takes about a millisecond.
DRAIN_SECONDS_MAX = 0.005
SWEEP_STEP = 128
# More than this unsent is latency: the backlog, which has a bound and drops, takes it instead.
UNSENT_BYTES_MAX = 128 * 1024
UNACKNOWLEDGED_MILLISECONDS_MAX = 60_000
NOTHING = memoryview(b"")
TCP_NOTSENT_LOWAT = 25  # Linux; the socket module has no name for it

Network = IPv4Network | IPv6Network


class StreamListener:
    """One address that clients connect to, and its connections by transport and client."""

    def __init__(
        self, address: SockAddress, endpoint: socket.socket, turn: TurnServer, perform: Perform
    ) -> None:
        self.address = address
        self.socket = endpoint
        self.messages = {
            transport: ClientMessages(transport, address, turn, perform) for transport in (TCP, TLS)
        }
        self.connections: dict[str, dict[SockAddress, StreamConnection]] = {TCP: {}, TLS: {}}
        self._dropped = turn.dropped

    def sender(self, transport: str) -> Callable[[bytes | memoryview, SockAddress], int]:
        """What sends to the clients of one transport."""
        connections = self.connections[transport]

        def send(message: bytes | memoryview, client: SockAddress) -> int:
            connection = connections.get(client)
            if connection is None:
                self._dropped["client unreachable"] += 1
                return 0
            sent = connection.send(message)
            if sent is None:
                self._dropped["client too slow"] += 1
            return sent or 0

        return send


class StreamSockets:
    """Accepts, drains, sweeps and closes the connections of all listeners."""

    def __init__(
        self,
        *,
        certificate: Certificate | None,
        trusted: tuple[Network, ...],
        limits: ClientLimits,
        turn: TurnServer,
        clock: Callable[[], float],
    ) -> None:
        self._certificate = certificate
        self._trusted = trusted
        self._limits = limits
        self._dropped = turn.dropped
        self._clock = clock
        self._epoll = select.epoll()
        self._listeners: dict[int, StreamListener] = {}
        self._listeners_resting: list[StreamListener] = []
        self._connections: dict[int, tuple[StreamConnection, StreamListener]] = {}
        # Oldest first; and how many of each address.
        self._strangers: dict[StreamConnection, bytes] = {}
        self._strangers_from: dict[bytes, int] = {}
        self._received = memoryview(bytearray(RECEIVE_LENGTH))
        self._decrypted = memoryview(bytearray(RECEIVE_LENGTH))

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def strangers(self) -> int:
        """How many connections have no allocation, as far as was looked."""
        return len(self._strangers)

    def counts(self) -> dict[str, int]:
        """How many connections there are, by transport; "opening" where that is still open."""
        listeners = self._listeners.values()
        known = {each: sum(len(at.connections[each]) for at in listeners) for each in (TCP, TLS)}
        return {**known, "opening": len(self._connections) - sum(known.values())}

    def settings_replace(self, trusted: tuple[Network, ...], limits: ClientLimits) -> None:
        """Believe other balancers, and keep other limits, for connections from now on."""
        self._trusted, self._limits = trusted, limits

    def listen(self, listener: StreamListener) -> None:
        """Accept what comes to a listener."""
        self._listeners[listener.socket.fileno()] = listener
        self._epoll.register(listener.socket, select.EPOLLIN)

    def fileno(self) -> int:
        """What the event loop watches."""
        return self._epoll.fileno()

    def close_all(self) -> None:
        """Close everything."""
        for connection, listener in list(self._connections.values()):
            self._close(connection, listener)
        for listener in self._listeners.values():
            listener.socket.close()
        self._epoll.close()

    def drain(self) -> None:
        """Take in what waits: the reader callback of the event loop."""
        started_at = now = self._clock()
        for descriptor, mask in self._epoll.poll(0, EVENTS_MAX):
            if descriptor in self._listeners:
                self._accept(self._listeners[descriptor], now)
            elif descriptor in self._connections:  # else closed by an earlier event
                connection, listener = self._connections[descriptor]
                if mask & select.EPOLLOUT:
                    connection.backlog_send()
                if connection.closing and not connection.backlog_bytes:
                    self._close(connection, listener)
                elif mask & ~select.EPOLLOUT:
                    self._receive(connection, listener, now)
            now = self._clock()
            if now - started_at > DRAIN_SECONDS_MAX:
                return  # what is left is told again

    def sweep_steps(self, now: float) -> Iterator[None]:
        """Close what is broken, late or idle, in steps of less than 10 ms."""
        for listener in self._listeners_resting:
            self._epoll.register(listener.socket, select.EPOLLIN)
        self._listeners_resting.clear()
        entries = list(self._connections.values())
        for start in range(0, len(entries), SWEEP_STEP):
            for connection, listener in entries[start : start + SWEEP_STEP]:
                if connection.socket.fileno() in self._connections:  # else closed meanwhile
                    self._sweep(connection, listener, now)
            yield

    def _sweep(self, connection: StreamConnection, listener: StreamListener, now: float) -> None:
        if connection.broken:
            self._close(connection, listener)
        elif connection.splice is None and connection.deadline <= now:
            if self._has_allocation(connection, listener):
                connection.deadline = now + self._limits.idle_seconds
            else:
                self._dropped["client timed out"] += 1
                self._close(connection, listener)
        elif self._is_stranger_again(connection, listener):
            connection.framer.length_max = self._limits.stranger_message_bytes_max
            self._stranger_admit(connection, listener)

    def _is_stranger_again(self, connection: StreamConnection, listener: StreamListener) -> bool:
        """Whether its client had an allocation: that has ended, or is elsewhere."""
        return not (
            connection in self._strangers
            or connection.is_spliced
            or connection.closing
            or self._has_allocation(connection, listener)
        )

    # --- beginning and end ------------------------------------------------------------------------

    def _accept(self, listener: StreamListener, now: float) -> None:
        for _ in range(ACCEPT_MAX):
            try:
                accepted, address = listener.socket.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError:  # no descriptor is left: the next sweep tries again
                self._epoll.unregister(listener.socket)
                self._listeners_resting.append(listener)
                self._dropped["too many clients"] += 1
                return
            if (
                len(self._connections) >= self._limits.connections_max
                or is_kept(accepted.fileno())
                or "%" in address[0]
            ):
                self._dropped["too many clients"] += 1
                accepted.close()
                continue
            self._begin(accepted, (address[0], address[1]), listener, now)

    def _begin(
        self, accepted: socket.socket, client: SockAddress, listener: StreamListener, now: float
    ) -> None:
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX)
        accepted.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS_MAX
        )
        connection = StreamConnection(
            accepted,
            client,
            deadline=now + self._limits.first_message_seconds,
            message_bytes_max=self._limits.stranger_message_bytes_max,
            backlog_bytes_max=self._limits.backlog_bytes_max,
            wait_for_room=self._wait_for_room,
            went_later=self._went_later,
        )
        self._epoll.register(accepted, select.EPOLLIN)
        self._connections[accepted.fileno()] = connection, listener
        if self._is_trusted(client[0]):  # the address that counts is still to come
            self._stranger_enter(connection, b"")
        else:
            self._stranger_admit(connection, listener)

    def _stranger_admit(self, connection: StreamConnection, listener: StreamListener) -> bool:
        """Let a stranger in, or close its connection; the oldest makes room."""
        packed = host_pack(connection.client[0])
        origin = packed if len(packed) == 4 else packed[:8]
        if self._strangers_from.get(origin, 0) >= self._limits.strangers_per_address_max:
            self._dropped["too many clients"] += 1
            self._close(connection, listener)
            return False
        self._stranger_enter(connection, origin)
        return True

    def _stranger_enter(self, connection: StreamConnection, origin: bytes) -> None:
        self._strangers[connection] = origin
        self._strangers_from[origin] = self._strangers_from.get(origin, 0) + 1
        if len(self._strangers) > self._limits.strangers_max:
            oldest = next(iter(self._strangers))
            self._dropped["too many clients"] += 1
            self._close(*self._connections[oldest.socket.fileno()])

    def _stranger_leave(self, connection: StreamConnection) -> None:
        origin = self._strangers.pop(connection, None)
        if origin is None:
            return
        self._strangers_from[origin] -= 1
        if not self._strangers_from[origin]:
            del self._strangers_from[origin]

    def _close(self, connection: StreamConnection, listener: StreamListener) -> None:
        descriptor = connection.socket.fileno()
        if self._connections.pop(descriptor, None) is None:
            return
        self._stranger_leave(connection)
        self._epoll.unregister(descriptor)
        connection.close()
        if connection.transport:
            known = listener.connections[connection.transport]
            if known.get(connection.client) is connection:
                del known[connection.client]
            listener.messages[connection.transport].lost(connection.client)

    def _wait_for_room(self, waiting: socket.socket, on: bool) -> None:
        connection, _ = self._connections[waiting.fileno()]
        reads = connection.splice is None or connection.splice.client_is_read
        events = select.EPOLLIN if reads and not connection.closing else 0
        self._epoll.modify(waiting, events | (select.EPOLLOUT if on else 0))

    def _went_later(self, connection: StreamConnection, length: int) -> None:
        """Count what had to wait for a client: for its allocation, or for that of its splice."""
        if connection.splice is not None:
            connection.splice.client_took(length)
            return
        _, listener = self._connections[connection.socket.fileno()]
        allocation = listener.messages[connection.transport].clients.get(connection.client)
        if allocation is not None:
            allocation.client_sent_bytes += length

    def find(self, five_tuple: FiveTuple) -> StreamConnection | None:
        """The connection of a client."""
        for listener in self._listeners.values():
            if listener.address == five_tuple.server:
                return listener.connections[five_tuple.transport].get(five_tuple.client)
        return None

    def read_set(self, connection: StreamConnection) -> None:
        """Read a spliced connection while its splice wants more."""
        if connection.socket.fileno() in self._connections:
            self._wait_for_room(connection.socket, bool(connection.backlog_bytes))

    def close_soon(self, connection: StreamConnection) -> None:
        """Close a connection once what waits for the client is sent; the sweep ends the wait."""
        entry = self._connections.get(connection.socket.fileno())
        if entry is None:
            return
        connection.closing = True
        connection.deadline = self._clock() + self._limits.idle_seconds
        if connection.backlog_bytes:
            self._wait_for_room(connection.socket, True)
        else:
            self._close(*entry)

    def _is_trusted(self, host: str) -> bool:
        return bool(self._trusted) and any(ip_address(host) in net for net in self._trusted)

    def _has_allocation(self, connection: StreamConnection, listener: StreamListener) -> bool:
        transport = connection.transport
        return bool(transport) and listener.messages[transport].keeps(connection.client)

    # --- data -------------------------------------------------------------------------------------

    def _receive(self, connection: StreamConnection, listener: StreamListener, now: float) -> None:
        try:
            length = connection.socket.recv_into(self._received)
        except BlockingIOError:
            return
        except OSError:
            length = 0
        data = self._received[:length]
        try:
            if not length:
                raise StreamEndedError
            if connection.opening is not None:
                data = self._open(connection, listener, data)
            if data:
                self._messages_take(connection, listener, data, now)
        except MalformedMessageError:
            self._dropped["malformed"] += 1
            self._close(connection, listener)
        except StreamEndedError:
            self._close(connection, listener)

    def _open(
        self, connection: StreamConnection, listener: StreamListener, data: memoryview
    ) -> memoryview:
        """Read what stands before the messages; what follows it, nothing while more must come.

        Raises:
            MalformedMessageError: no PROXY header where one must be; TLS without a certificate.
        """
        opening = connection.opening
        assert opening is not None
        opening += data
        stream = bytes(opening)
        if self._strangers.get(connection) == b"":
            header = proxy_header_read(stream)
            if header is None:
                return NOTHING
            self._stranger_leave(connection)
            connection.client = header.client or connection.client
            if not self._stranger_admit(connection, listener):
                return NOTHING
            stream = stream[header.length :]
            del opening[: header.length]
        if not stream:
            return NOTHING
        if stream[0] == TLS_HANDSHAKE:
            if self._certificate is None:
                raise MalformedMessageError("TLS, and no certificate")
            connection.tls = TlsEnd(self._certificate.tls)
        connection.transport = TLS if connection.tls else TCP
        connection.opening = None
        known = listener.connections[connection.transport]
        before = known.get(connection.client)
        if before is not None:  # a balancer says it twice: the older one is gone
            self._close(before, listener)
        known[connection.client] = connection
        return memoryview(stream)

    def _messages_take(
        self, connection: StreamConnection, listener: StreamListener, data: memoryview, now: float
    ) -> None:
        if connection.tls is None:
            self._stream_take(connection, listener, data, now)
            return
        try:
            for part in connection.tls.receive(data, self._decrypted):
                self._stream_take(connection, listener, part, now)
        finally:
            waiting = connection.tls.waiting()
            if waiting:
                connection.write(waiting)
            elif connection in self._strangers:
                connection.acknowledge()

    def _stream_take(
        self, connection: StreamConnection, listener: StreamListener, data: memoryview, now: float
    ) -> None:
        if connection.splice is not None:
            connection.splice.from_client(data)
            return
        if connection.closing:  # what was read with its last message; its peer is gone
            return
        messages = listener.messages[connection.transport]
        left = connection.framer.pending_bytes + len(data)
        for message in connection.framer.receive(data):
            left -= len(message)
            connection.deadline = now + self._limits.idle_seconds
            messages.take(message, connection.client, now)
            if connection in self._strangers and messages.keeps(connection.client):
                self._stranger_leave(connection)
                connection.framer.length_max = MESSAGE_LENGTH_MAX
            elif connection.is_spliced:  # this message bound it to a peer
                self._stranger_leave(connection)
                if left:
                    self._stream_take(connection, listener, data[len(data) - left :], now)
                return

    def five_tuples(self) -> list[FiveTuple]:
        """Of every connection whose transport is known; for whoever looks."""
        return [
            FiveTuple(connection.transport, connection.client, listener.address)
            for connection, listener in self._connections.values()
            if connection.transport
        ]
