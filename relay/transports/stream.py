"""One client's TCP connection: its opening, TLS where it begins so, its buffers.

    ┌ PROXY header, from trusted networks ┬ 0x16: TLS ──▶ stream of messages
                                          └ else: TCP ──▶ stream of messages

What a client does not read waits in a backlog with a bound; data beyond it is dropped, as a router
would, and nothing grows.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from relay.core.addresses import SockAddress
from relay.core.framing import StreamFramer

RECEIVE_LENGTH = 1 << 16
TLS_HANDSHAKE = 0x16
# Answers to requests still fit where data no longer does: without them a call would end.
ANSWERS_BYTES = 16 * 1024
CLASS_OF_ANSWERS = 0x01  # in the first byte of a STUN message: success and error
CHANNELDATA = 0x40


class StreamEndedError(Exception):
    """The client has closed its end, or broken TLS."""


class TlsEnd:
    """TLS over bytes that somebody else receives and sends."""

    __slots__ = ("_incoming", "_object", "_outgoing")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def receive(self, data: memoryview, buffer: memoryview) -> Iterator[memoryview]:
        """Decrypt; what is yielded lies in `buffer` and is good until the next step.

        Raises:
            StreamEndedError: the client has ended TLS, or what it sends is none.
        """
        self._incoming.write(data)
        while True:
            try:
                length = self._object.read(len(buffer), buffer)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLError as error:
                raise StreamEndedError from error
            if not length:
                raise StreamEndedError
            yield buffer[: int(length)]

    def encrypt(self, message: bytes | memoryview) -> bytes:
        """What is to be sent for `message`; nothing before the handshake is done."""
        rest = memoryview(message)
        try:
            while rest:
                rest = rest[self._object.write(rest) :]  # a record at a time
        except ssl.SSLError:
            return b""
        return self._outgoing.read()

    def waiting(self) -> bytes:
        """What TLS itself has to send."""
        return self._outgoing.read()

    def close_notify(self) -> bytes:
        """The alert that ends the stream properly."""
        try:
            self._object.unwrap()
        except (ssl.SSLError, ValueError):
            pass
        return self._outgoing.read()


class Splice(Protocol):
    """What a connection's bytes go to once it carries the data of a peer."""

    @property
    def client_is_read(self) -> bool:
        """Whether more may be taken from the client."""

    def from_client(self, data: memoryview) -> None:
        """Take the client's bytes."""

    def client_has_room(self) -> None:
        """All that waited for the client is sent."""

    def client_took(self, length: int) -> None:
        """So much of what waited is sent."""


class StreamConnection:
    """A connection and what waits in it.

    Attributes:
        client: the client's address, the one that a trusted balancer says.
        transport: "tcp" or "tls"; empty until the first bytes have told.
        opening: these first bytes, while they are too few; None once the transport is known.
        tls: the server's end of TLS.
        deadline: when to look whether it may stay; unix seconds.
        broken: sending failed; what is left of it will be swept.
        splice: where it goes raw, to a peer (RFC 6062); None where it carries messages.
        closing: it is closed as soon as the client has taken what waits.

    What is sent is counted when the kernel takes it: over TLS a message with its last byte. What
    waits is told of later (`went_later`), or never, where the connection breaks.
    """

    __slots__ = (
        "_backlog",
        "_backlog_max",
        "_uncounted",
        "_wait_for_room",
        "_went_later",
        "broken",
        "client",
        "closing",
        "deadline",
        "framer",
        "opening",
        "socket",
        "splice",
        "tls",
        "transport",
    )

    def __init__(
        self,
        accepted: socket.socket,
        client: SockAddress,
        *,
        deadline: float,
        message_bytes_max: int,
        backlog_bytes_max: int,
        wait_for_room: Callable[[socket.socket, bool], None],
        went_later: Callable[[StreamConnection, int], None],
    ) -> None:
        self.socket = accepted
        self.client = client
        self.transport = ""
        self.opening: bytearray | None = bytearray()
        self.tls: TlsEnd | None = None
        self.framer = StreamFramer(message_bytes_max)
        self.deadline = deadline
        self.broken = False
        self.splice: Splice | None = None
        self.closing = False
        self._backlog = bytearray()
        self._backlog_max = backlog_bytes_max
        self._wait_for_room = wait_for_room
        self._went_later = went_later
        # What the backlog consists of: bytes that wait, and what they count once they are sent.
        self._uncounted: deque[tuple[int, int]] = deque()

    @property
    def backlog_bytes(self) -> int:
        """What waits until the client reads."""
        return len(self._backlog)

    @property
    def is_spliced(self) -> bool:
        """Whether it carries the data of a peer."""
        return self.splice is not None

    def send(self, message: bytes | memoryview) -> int | None:
        """Send one message, padded as streams want it.

        Returns:
            What was sent at once of its length with padding; None where it was dropped because too
            much waits already.
        """
        length = len(message)
        if self._backlog:
            answers = ANSWERS_BYTES if message[0] == CLASS_OF_ANSWERS else 0
            if len(self._backlog) + length > self._backlog_max + answers:
                return None
        padding = -length & 3
        if padding:
            message = bytes(message) + bytes(padding)
        sent = self.send_raw(message)
        return None if self.broken else sent

    def send_raw(self, data: bytes | memoryview) -> int:
        """Send bytes of a peer; how many went at once. The caller waits for room."""
        if self.tls is None:
            return self.write(data, len(data))
        return self.write(self.tls.encrypt(data), len(data))

    def write(self, data: bytes | memoryview, counts: int = 0) -> int:
        """Send bytes as they are, or let them wait; `broken` afterwards where that fails.

        Args:
            data: what is sent.
            counts: what it counts, in bytes before TLS.

        Returns:
            What of that went at once.
        """
        if not data:  # TLS has ended
            return 0
        sent = 0
        if not self._backlog:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self.broken = True
                return 0
            if sent == len(data):
                return counts
            data = data[sent:]
            self._wait_for_room(self.socket, True)
        counted = sent if counts and self.tls is None else 0
        self._backlog += data
        self._uncounted.append((len(data), counts - counted))
        if len(self._backlog) > self._backlog_max + 2 * ANSWERS_BYTES:
            self.broken = True  # it makes TLS answer and reads nothing
        return counted

    def acknowledge(self) -> None:
        """Acknowledge what came, at once.

        The end of a handshake has no answer to carry its acknowledgement, and without it many a
        client holds back its first request for 40 ms.
        """
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except OSError:
            self.broken = True

    def backlog_send(self) -> None:
        """There is room again: send what waits."""
        try:
            sent = self.socket.send(self._backlog)
        except BlockingIOError:
            return
        except OSError:
            self.broken = True
            return
        del self._backlog[:sent]
        counted = self._counted(sent)
        if counted:
            self._went_later(self, counted)
        if not self._backlog:
            self._wait_for_room(self.socket, False)
            if self.splice is not None:
                self.splice.client_has_room()

    def _counted(self, sent: int) -> int:
        """What the first `sent` bytes of the backlog count."""
        counted = 0
        while sent:
            waiting, counts = self._uncounted.popleft()
            if waiting <= sent:
                sent -= waiting
                counted += counts
                continue
            part = sent if counts and self.tls is None else 0
            self._uncounted.appendleft((waiting - sent, counts - part))
            return counted + part
        return counted

    def uncounted_take(self) -> int:
        """What waits, to be counted now: nobody will be there to count it when it is sent."""
        counted = sum(counts for _, counts in self._uncounted)
        self._uncounted = deque((waiting, 0) for waiting, _ in self._uncounted)
        return counted

    def close(self) -> None:
        """Close it; with TLS the client is told."""
        if self.tls is not None and not self._backlog and not self.broken:
            try:
                self.socket.send(self.tls.close_notify())
            except OSError:
                pass
        self.socket.close()
