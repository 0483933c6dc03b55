"""DTLS without sockets: our end of it, and clients that remember what they sent."""

from __future__ import annotations

import os
from typing import Any

import pytest
from OpenSSL import SSL

from relay.config import ClientLimits
from relay.core.effects import Effect, SendToClient
from relay.core.turn import TurnServer
from relay.transports.certificates import Certificate
from relay.transports.dtls import DtlsSessions
from tests.certificates import Files
from tests.relay.fake_link import START, settings_make
from tests.relay.transports.rig import DtlsClient, dtls_connection
from tests.turn_client import Address, Kind, Message, Method, message_decode, message_encode

SERVER = "127.0.0.1", 3478


def hello_make() -> bytes:
    """A ClientHello without a cookie."""
    client = dtls_connection()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(65536)


class Listener:
    """DTLS at one of our addresses without a socket, at most ten answers a second to a network.

    Attributes:
        sent: what went, and to whom.
        silences: what the log would be told.
    """

    def __init__(self, certificate: Files, answers_per_second: int = 10) -> None:
        settings = settings_make(unauthenticated_answers_per_second=answers_per_second)
        self.turn = TurnServer(settings, os.urandom)
        self.sent: list[tuple[bytes, Address]] = []
        self.silences: list[Effect] = []
        self.sessions = DtlsSessions(
            SERVER,
            Certificate(*certificate),
            ClientLimits(),
            self.turn,
            self.perform,
            self.send,
        )

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendToClient):
                self.sessions.send(effect.datagram, effect.five_tuple.client)
            else:
                self.silences.append(effect)

    def send(self, datagram: bytes | memoryview, client: Address) -> int:
        self.sent.append((bytes(datagram), client))
        return len(datagram)

    def sweep(self, now: float) -> None:
        for _ in self.sessions.sweep_steps(now):
            pass


class FakeClient:
    """A client's end of DTLS that meets a listener without a socket.

    Attributes:
        datagrams: what it sent.
        answers: what it was sent, as it came.
    """

    def __init__(self, listener: Listener, address: Address = ("192.0.2.7", 40000)) -> None:
        self.listener = listener
        self.address = address
        self.dtls = dtls_connection()
        self.datagrams: list[bytes] = []
        self.answers: list[bytes] = []

    def flight(self, now: float = START) -> bool:
        """Send what comes next in the handshake, and take the answer; whether it is done."""
        try:
            self.dtls.do_handshake()
        except SSL.WantReadError:
            done = False
        else:
            done = True
        self.flush(now)
        return done

    def handshake(self, now: float = START) -> None:
        """Shake hands."""
        assert any(self.flight(now) for _ in range(6))

    def flush(self, now: float = START) -> None:
        """Send what waits."""
        try:
            self.datagrams.append(self.dtls.bio_read(65536))
        except SSL.WantReadError:
            return
        self.listener.sessions.receive(self.datagrams[-1], self.address, now)
        self.take()

    def take(self) -> None:
        """Take what was sent to us."""
        for answer, client in self.listener.sent:
            assert client == self.address
            self.answers.append(answer)
            self.dtls.bio_write(answer)
        self.listener.sent.clear()

    def ask(self, now: float = START) -> None:
        """Send a Binding request."""
        self.dtls.send(message_encode(Method.BINDING, Kind.REQUEST))
        self.flush(now)

    def hear(self) -> Message:
        """The next message; SSL.WantReadError where there is none."""
        return message_decode(self.dtls.recv(65536))


class RememberingClient(DtlsClient):
    """Remembers the datagrams that it sends."""

    def __init__(self, *parts: Any) -> None:
        self.datagrams: list[bytes] = []
        super().__init__(*parts)

    def flush(self) -> None:
        try:
            self.datagrams.append(self.dtls.bio_read(65536))
        except SSL.WantReadError:
            return
        self.socket.send(self.datagrams[-1])
