"""One stream: what is counted is what the kernel took, however slowly the client reads."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.transports.stream import StreamConnection, TlsEnd
from tests.certificates import certificate_write

CLIENT = ("192.0.2.7", 40000)
MESSAGE = b"\x40\x00" + bytes(1022)
BACKLOG_BYTES = 64 * 1024


class Slow:
    """A connection whose client reads when it is told to, and what it counted."""

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.waits: list[bool] = []
        self.counted = 0
        self.connection = StreamConnection(
            ours,
            CLIENT,
            deadline=0.0,
            message_bytes_max=1 << 16,
            backlog_bytes_max=BACKLOG_BYTES,
            wait_for_room=lambda _, on: self.waits.append(on),
            went_later=self._went_later,
        )

    def _went_later(self, connection: StreamConnection, length: int) -> None:
        assert connection is self.connection
        self.counted += length

    def send(self) -> bool:
        sent = self.connection.send(MESSAGE)
        self.counted += sent or 0
        return sent is not None

    def read(self) -> bytes:
        """What has come to the client."""
        came = b""
        try:
            while part := self.client.recv(1 << 16):
                came += part
        except BlockingIOError:
            pass
        return came

    def close(self) -> None:
        self.connection.socket.close()
        self.client.close()


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.close()


def test_what_waits_is_counted_when_it_goes(slow: Slow) -> None:
    accepted = 0
    while slow.send():
        accepted += len(MESSAGE)
    assert slow.waits.pop()
    assert slow.counted + slow.connection.backlog_bytes == accepted
    came = slow.read()
    assert len(came) == slow.counted
    while slow.connection.backlog_bytes:
        slow.connection.backlog_send()
        came += slow.read()
        assert len(came) == slow.counted
    assert not slow.waits.pop()
    assert len(came) == accepted


def test_what_never_went_is_never_counted(slow: Slow) -> None:
    while slow.send():
        pass
    assert slow.connection.backlog_bytes > BACKLOG_BYTES / 2
    slow.connection.close()
    assert len(slow.read()) == slow.counted


def test_what_waits_can_be_counted_beforehand_and_is_not_counted_again(slow: Slow) -> None:
    accepted = 0
    while slow.send():
        accepted += len(MESSAGE)
    slow.counted += slow.connection.uncounted_take()
    assert slow.counted == accepted
    while slow.connection.backlog_bytes:
        slow.read()
        slow.connection.backlog_send()
    assert slow.counted == accepted


def test_message_over_tls_is_counted_with_its_last_byte(slow: Slow, tmp_path: Path) -> None:
    chain, key = certificate_write(tmp_path, "turn.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(incoming, outgoing)
    slow.connection.tls = TlsEnd(context)
    room = memoryview(bytearray(1 << 16))
    for _ in range(3):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        list(slow.connection.tls.receive(memoryview(outgoing.read()), room))
        slow.connection.write(slow.connection.tls.waiting())
        incoming.write(slow.read())
    accepted = 0
    while slow.send():
        accepted += len(MESSAGE)
    read = 0
    while True:
        incoming.write(slow.read())
        try:
            while True:
                read += len(client.read(1 << 16))
        except ssl.SSLWantReadError:
            pass
        assert read == slow.counted
        if not slow.connection.backlog_bytes:
            break
        slow.connection.backlog_send()
    assert read == slow.counted == accepted
