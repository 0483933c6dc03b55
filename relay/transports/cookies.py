"""The cookie that a DTLS client sends back before anything is kept (RFC 6347 section 4.2.1).

    record header 13 | handshake header 12 | version 2 | random 32 | session id 1 + n | cookie 1 + n
    | cipher suites 2 + n | compression methods 1 + n | extensions                     a ClientHello

    cookie = HMAC(key; period, client's address, all of that but the cookie and what follows), cut

Every part that is covered has its length before it. A cookie is good in the period that it was
made in and in the next one. So whoever collects cookies has little of them, and a client whose
hello is lost again and again is in time all the same: some take no second cookie.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

from relay.core.addresses import SockAddress
from relay.core.errors import MalformedMessageError

RECORD_HEADER_LENGTH = 13
EPOCH = slice(3, 5)
RECORD_NUMBER = slice(5, 11)
UNENCRYPTED = b"\0\0"  # the first epoch
HANDSHAKE_HEADER_LENGTH = 12
HELLO_AT = RECORD_HEADER_LENGTH + HANDSHAKE_HEADER_LENGTH
RANDOM = slice(HELLO_AT + 2, HELLO_AT + 34)
COOKIE_LENGTH = 16
COOKIE_PERIOD_SECONDS = 120.0
_HANDSHAKE = 22
_CLIENT_HELLO = 1


class Asked(NamedTuple):
    """Who asks for a session, for what, and when: what a cookie is made of.

    Attributes:
        client: the address that the hello came from.
        parameters: see `hello_parameters`.
        now: the time.
    """

    client: SockAddress
    parameters: bytes
    now: float


class Cookies:
    """Makes cookies and knows its own again, and keeps none."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, asked: Asked) -> bytes:
        """The cookie for a client that shows none, or none that is good."""
        return self._cookie(asked, period(asked.now))

    def is_good(self, asked: Asked, shown: bytes) -> bool:
        """Whether this client was given the cookie that it shows, for this hello and of late."""
        latest = period(asked.now)
        return any(
            hmac.compare_digest(self._cookie(asked, made), shown) for made in (latest, latest - 1)
        )

    def _cookie(self, asked: Asked, made: int) -> bytes:
        host, port = asked.client
        fields = str(made).encode(), host.encode(), str(port).encode(), asked.parameters
        covered = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        return hmac.digest(self._key, covered, "sha256")[:COOKIE_LENGTH]


def period(now: float) -> int:
    """The number of the period that a time lies in."""
    return int(now // COOKIE_PERIOD_SECONDS)


def is_client_hello(datagram: bytes) -> bool:
    """Whether this begins with an unencrypted ClientHello."""
    return (
        len(datagram) > RECORD_HEADER_LENGTH
        and datagram[0] == _HANDSHAKE
        and datagram[EPOCH] == UNENCRYPTED
        and datagram[RECORD_HEADER_LENGTH] == _CLIENT_HELLO
    )


def hello_parameters(datagram: bytes) -> bytes:
    """What a client must say again when it sends its cookie back.

    Returns:
        Version, random, session id, cipher suites and compression methods of the ClientHello.

    Raises:
        MalformedMessageError: it is none, or cut short.
    """
    if not is_client_hello(datagram):
        raise MalformedMessageError("no ClientHello")
    cookie_at = _field_end(datagram, RANDOM.stop, 1)
    suites_at = _field_end(datagram, cookie_at, 1)
    end = _field_end(datagram, _field_end(datagram, suites_at, 2), 1)
    return datagram[HELLO_AT:cookie_at] + datagram[suites_at:end]


def _field_end(datagram: bytes, at: int, width: int) -> int:
    """Where a field ends whose length stands at `at`, in `width` bytes."""
    begin = at + width
    end = begin + int.from_bytes(datagram[at:begin], "big")
    if max(begin, end) > len(datagram):
        raise MalformedMessageError("a ClientHello that is cut short")
    return end
