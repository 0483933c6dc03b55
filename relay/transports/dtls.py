"""DTLS sessions of the clients of one UDP socket (RFC 6347; RFC 8656 section 3.1).

    client ──ClientHello──▶ one waiting connection answers with a cookie and forgets ──▶
    client ──ClientHello, cookie──▶ that connection becomes the client's session
                                    └ has it one: its successor, once the handshake is done

So a spoofed address costs an answer smaller than the question, and no memory; and whoever sends
somebody's hello once more ends no session, for he cannot finish the handshake. Nor does he end the
successor's handshake in its first second; who never stops can hold a client up that begins anew,
as long as the cookie is good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from OpenSSL import SSL

from relay.config import ClientLimits
from relay.core.addresses import SPOOFABLE_TRANSPORT, FiveTuple, SockAddress
from relay.core.classic import classic_refusal
from relay.core.errors import MalformedMessageError
from relay.core.turn import TurnServer
from relay.transports.certificates import Certificate
from relay.transports.cookies import (
    EPOCH,
    RANDOM,
    RECORD_HEADER_LENGTH,
    RECORD_NUMBER,
    UNENCRYPTED,
    Asked,
    hello_parameters,
    is_client_hello,
)
from relay.transports.messages import ClientMessages, Perform

TRANSPORT = "dtls"
# What a handshake's datagrams may have: IPv6's smallest MTU without the IP and UDP headers.
HANDSHAKE_DATAGRAM_MAX = 1232
RECORD_DATA_MAX = 16384
DATAGRAM_LENGTH_MAX = RECORD_HEADER_LENGTH + RECORD_DATA_MAX + 256
SWEEP_STEP = 64
# Handshakes of clients that begin anew, at one of our addresses; the oldest makes room.
SUCCESSORS_MAX = 64
# What another hello of its client leaves a handshake; then that client repeats its own (RFC 6347
# section 4.2.4.1).
SUCCESSOR_KEPT_SECONDS = 1.0
# Of our first record after the cookie, whatever the hello's number, as OpenSSL counts.
FIRST_RECORD_NUMBER = 1
_APPLICATION_DATA = 23

Datagrams = Callable[[bytes | memoryview, SockAddress], int]


class DtlsSession:
    """One client's session; established once its handshake is done.

    Attributes:
        begun: when it began.
        contested: another hello came while it had its time. Whose client waits nobody knows, and
            what is for one would end the handshake of the other: no time-out repeats what we sent.
        random: of the ClientHello that began it.
        numbers_ahead: what is added to the numbers of our records before encryption begins.
    """

    __slots__ = (
        *("begun", "connection", "contested", "deadline", "established"),
        *("numbers_ahead", "random"),
    )

    def __init__(
        self, connection: SSL.Connection, begun: float, deadline: float, hello: bytes
    ) -> None:
        self.connection = connection
        self.begun = begun
        self.contested = False
        self.deadline = deadline
        self.established = False
        self.random = hello[RANDOM]
        self.numbers_ahead = int.from_bytes(hello[RECORD_NUMBER], "big") - FIRST_RECORD_NUMBER


class DtlsSessions:
    """The sessions at one of our addresses; at most `dtls_sessions_max`.

    Attributes:
        limits: what sessions may take up.
    """

    def __init__(
        self,
        server: SockAddress,
        certificate: Certificate,
        limits: ClientLimits,
        turn: TurnServer,
        perform: Perform,
        datagram_send: Datagrams,
    ) -> None:
        self._certificate = certificate
        self.limits = limits
        self._turn = turn
        self._perform = perform
        self._dropped = turn.dropped
        self._messages = ClientMessages(TRANSPORT, server, turn, perform)
        self._datagram_send = datagram_send
        self._sessions: dict[SockAddress, DtlsSession] = {}
        self._successors: dict[SockAddress, DtlsSession] = {}  # only where there is a session
        self._buffer = bytearray(RECORD_DATA_MAX)
        self._context = certificate.dtls
        self._waiting = self._connection_make()

    def __len__(self) -> int:
        return len(self._sessions)

    def receive(self, datagram: bytes, client: SockAddress, now: float) -> None:
        """Take in a datagram whose first byte says DTLS."""
        if len(datagram) > DATAGRAM_LENGTH_MAX:
            self._dropped["malformed"] += 1
            return
        session = self._sessions.get(client)
        if session is None:
            self._hello(datagram, client, now)
        elif session.established and is_client_hello(datagram):
            self._hello_again(session, datagram, client, now)
        elif client in self._successors and datagram[0] != _APPLICATION_DATA:
            self._successor_receive(self._successors[client], datagram, client, now)
            # Only what is encrypted may be the session's own. Whose it is, decryption tells.
            if self._sessions.get(client) is session and datagram[EPOCH] != UNENCRYPTED:
                self._session_receive(session, datagram, client, now)
        else:
            self._session_receive(session, datagram, client, now)

    def send(self, message: bytes | memoryview, client: SockAddress) -> int:
        """Send a message; the bytes that went, 0 where it was dropped."""
        session = self._sessions.get(client)
        if session is None or not session.established or len(message) > RECORD_DATA_MAX:
            self._dropped["client unreachable"] += 1
            return 0
        try:
            session.connection.send(message)
        except SSL.Error:
            self._dropped["client unreachable"] += 1
            return 0
        return len(message) if self._flush(session, client) else 0

    def sweep_steps(self, now: float) -> Iterator[None]:
        """Send lost handshake messages again, end what took too long or is idle; in steps."""
        entries = list(self._sessions.items())
        for start in range(0, len(entries), SWEEP_STEP):
            for client, session in entries[start : start + SWEEP_STEP]:
                if self._sessions.get(client) is session:
                    self._sweep(session, client, now)
            yield
        for client, successor in list(self._successors.items()):
            if successor.deadline <= now:
                del self._successors[client]
            elif not successor.contested:
                self._handshake_repeat(successor, client)

    def _sweep(self, session: DtlsSession, client: SockAddress, now: float) -> None:
        if session.deadline > now:
            if not session.established:
                self._handshake_repeat(session, client)
            return
        if self._messages.keeps(client):
            session.deadline = now + self.limits.idle_seconds
        else:
            self._end(session, client)

    def close(self) -> None:
        """Tell every client that its session is over."""
        self._successors.clear()
        for client, session in list(self._sessions.items()):
            self._end(session, client)

    # --- the handshake ----------------------------------------------------------------------------

    def _connection_make(self) -> SSL.Connection:
        connection = SSL.Connection(self._context)
        connection.set_accept_state()
        connection.set_ciphertext_mtu(HANDSHAKE_DATAGRAM_MAX)
        return connection

    def _hello(self, datagram: bytes, client: SockAddress, now: float) -> None:
        try:
            asked = Asked(client, hello_parameters(datagram), now)
        except MalformedMessageError:
            self._dropped["malformed"] += 1
            return
        if self._context is not self._certificate.dtls:  # there is a new certificate
            self._context = self._certificate.dtls
            self._waiting = self._connection_make()
        connection = self._waiting
        connection.set_app_data(asked)
        connection.bio_write(datagram)
        try:
            connection.DTLSv1_listen()
        except SSL.WantReadError:
            self._cookie_send(connection, client, now)
            return
        except SSL.Error:
            self._waiting = self._connection_make()
            self._dropped["malformed"] += 1
            return
        self._waiting = self._connection_make()
        deadline = now + self.limits.first_message_seconds
        begun = DtlsSession(connection, now, deadline, datagram)
        # Listening has taken the ClientHello out of the buffer; the handshake wants it again.
        if client in self._sessions:
            if self._successor_enter(begun, client):
                self._successor_receive(begun, datagram, client, now)
        elif len(self._sessions) < self.limits.dtls_sessions_max or self._room_make():
            self._sessions[client] = begun
            self._session_receive(begun, datagram, client, now)
        else:
            self._dropped["too many clients"] += 1

    def _cookie_send(self, connection: SSL.Connection, client: SockAddress, now: float) -> None:
        """Answer who has proved nothing: for the limit on such answers this is UDP like any."""
        try:
            answer = connection.bio_read(HANDSHAKE_DATAGRAM_MAX)
        except SSL.WantReadError:
            return
        five_tuple = FiveTuple(SPOOFABLE_TRANSPORT, client, self._messages.server)
        silence = self._turn.guard.silence_unproven(five_tuple, now)
        if silence is None:
            self._datagram_send(answer, client)
        elif silence:
            self._perform(silence)

    def _room_make(self) -> bool:
        """End the oldest session without an allocation; False where every one has one."""
        keeps = self._messages.keeps
        oldest = next((client for client in self._sessions if not keeps(client)), None)
        if oldest is None:
            return False
        self._successors.pop(oldest, None)
        self._end(self._sessions[oldest], oldest)
        return True

    def _handshake_repeat(self, session: DtlsSession, client: SockAddress) -> None:
        try:
            repeated = session.connection.DTLSv1_handle_timeout()
        except SSL.Error:
            return
        if repeated:
            self._flush(session, client)

    # --- clients that begin anew ------------------------------------------------------------------

    def _hello_again(
        self, session: DtlsSession, datagram: bytes, client: SockAddress, now: float
    ) -> None:
        """A hello on a live session: a client that lost its state, or an old hello once more.

        The session lives until a handshake is done that began with it (RFC 6347 section 4.2.8): a
        good cookie shows where the hello comes from, but not that nobody repeats it.
        """
        successor = self._successors.get(client)
        if successor is not None and datagram[RANDOM] == successor.random:
            self._successor_receive(successor, datagram, client, now)
        elif datagram[RANDOM] != session.random:
            self._hello(datagram, client, now)

    def _successor_enter(self, begun: DtlsSession, client: SockAddress) -> bool:
        """Let a handshake go on; False where another of this client has not had its time yet."""
        other = self._successors.get(client)
        if other is not None and begun.begun < other.begun + SUCCESSOR_KEPT_SECONDS:
            other.contested = True
            return False
        self._successors.pop(client, None)
        if len(self._successors) >= SUCCESSORS_MAX:
            del self._successors[next(iter(self._successors))]
        self._successors[client] = begun
        return True

    def _successor_receive(
        self, successor: DtlsSession, datagram: bytes, client: SockAddress, now: float
    ) -> None:
        successor.connection.bio_write(datagram)
        try:
            successor.connection.do_handshake()
        except SSL.WantReadError:
            self._flush(successor, client)
        except SSL.Error:
            del self._successors[client]  # and no word of it: the session's client would hear it
        else:
            del self._successors[client], self._sessions[client]
            self._messages.lost(client)
            self._sessions[client] = successor
            self._session_read(successor, client, now)

    # --- sessions ---------------------------------------------------------------------------------

    def _session_receive(
        self, session: DtlsSession, datagram: bytes, client: SockAddress, now: float
    ) -> None:
        session.connection.bio_write(datagram)
        self._session_read(session, client, now)

    def _session_read(self, session: DtlsSession, client: SockAddress, now: float) -> None:
        connection = session.connection
        try:
            if not session.established:
                connection.do_handshake()
                session.established = True
                connection.set_app_data(None)  # the cookie is not looked at again
            view = memoryview(self._buffer)
            while self._sessions.get(client) is session:
                length = connection.recv_into(self._buffer)
                session.deadline = now + self.limits.idle_seconds
                if length:
                    self._message_take(view[:length], client, now)
        except SSL.WantReadError:
            self._flush(session, client)
        except SSL.Error:
            self._end(session, client)

    def _message_take(self, message: memoryview, client: SockAddress, now: float) -> None:
        refusal = classic_refusal(message)
        if refusal is None:
            self._messages.take(message, client, now)
        else:
            self._dropped["malformed"] += 1
            self.send(refusal, client)

    def _end(self, session: DtlsSession, client: SockAddress) -> None:
        del self._sessions[client]
        if session.established:
            try:
                session.connection.shutdown()
            except SSL.Error:
                pass
        self._flush(session, client)
        self._messages.lost(client)
        successor = self._successors.pop(client, None)
        if successor is not None:
            self._sessions[client] = successor

    def _flush(self, session: DtlsSession, client: SockAddress) -> bool:
        """Send what waits in a session; whether something went."""
        try:
            records = session.connection.bio_read(1 << 16)
        except SSL.WantReadError:
            return False
        if session.numbers_ahead and records[EPOCH] == UNENCRYPTED:
            records = records_renumbered(records, session.numbers_ahead)
        if len(records) <= HANDSHAKE_DATAGRAM_MAX:
            return bool(self._datagram_send(records, client))
        sent = [self._datagram_send(part, client) for part in datagrams_split(records)]
        return all(sent)


def records_renumbered(records: bytes, ahead: int) -> bytes:
    """The same records in a row, with greater numbers where nothing protects them.

    The first ServerHello has the number of its ClientHello's record (RFC 6347 section 4.2.1):
    with one that a HelloVerifyRequest had already, the client would take it for that, repeated.
    """
    renumbered = bytearray(records)
    at = 0
    while at < len(records):
        header = records[at : at + RECORD_HEADER_LENGTH]
        if header[EPOCH] == UNENCRYPTED:
            number = int.from_bytes(header[RECORD_NUMBER], "big") + ahead
            begin = at + RECORD_NUMBER.start
            renumbered[begin : begin + 6] = (number % (1 << 48)).to_bytes(6, "big")
        at += RECORD_HEADER_LENGTH + int.from_bytes(header[11:13], "big")
    return bytes(renumbered)


def datagrams_split(records: bytes) -> Iterator[bytes]:
    """Records in a row, divided into datagrams: as many in one as fit, none cut.

    A record of data longer than that goes by itself, and IP fragments it as it does for UDP.
    """
    start = at = 0
    while at < len(records):
        length = RECORD_HEADER_LENGTH + int.from_bytes(records[at + 11 : at + 13], "big")
        if at > start and at + length - start > HANDSHAKE_DATAGRAM_MAX:
            yield records[start:at]
            start = at
        at += length
    yield records[start:]
