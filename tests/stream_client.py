"""The test client over TCP and TLS."""

from __future__ import annotations

import socket
import ssl

from tests.turn_client import PAIR, Address, TurnClient

PATIENCE_SECONDS = 30.0


class StreamClient(TurnClient):
    """The test client over TCP or TLS; `sent` and `received` hold sizes with padding."""

    def __init__(
        self,
        server: Address,
        username: str = "",
        password: str = "",
        *,
        tls: bool = False,
        before: bytes = b"",
        local: Address = ("", 0),
    ) -> None:
        super().__init__(("127.0.0.1", 9) if ":" in server[0] else server, username, password)
        self.socket.close()
        self.socket = socket.create_connection(server, PATIENCE_SECONDS, source_address=local)
        self.socket.sendall(before)
        if tls:
            self.socket = tls_context().wrap_socket(self.socket)

    def transmit(self, datagram: bytes) -> None:
        datagram += bytes(-len(datagram) % 4)
        self.socket.sendall(datagram)
        self.sent.append(len(datagram))

    def datagram_receive(self) -> bytes:
        head = self._exactly(4)
        kind, length = PAIR.unpack(head)
        rest = length + -length % 4 if kind & 0xC000 else length + 16
        message = head + self._exactly(rest)
        self.received.append(len(message))
        assert not kind & 0xC000 or not any(message[4 + length :]), "padding that is not zero"
        return message

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data


def tls_context() -> ssl.SSLContext:
    """A client's, which takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
