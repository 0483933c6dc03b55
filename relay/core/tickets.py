"""Mobility tickets (RFC 8016 sections 3.3 and 5): what proves that a client had an allocation.

    HMAC-SHA256 of what follows, in the clear: 16 bytes | allocation, number, salt: 13, encrypted

The HMAC is also what the encryption begins with (as in RFC 5297), for no two tickets are alike.
Nothing is kept for a ticket. The keys are made at the start of the relay: tickets are good as long
as their allocations, which do not outlive it either.

Coturn's client takes no more than 32 bytes, and cuts a ticket at its first zero byte: the salt is
the first one that leaves none in it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from struct import Struct

_CONTENT = Struct("!QIB")
_SALTS = 1 << 8  # each does with nine chances in ten
_MAC_LENGTH = 16
TICKET_LENGTH = _MAC_LENGTH + _CONTENT.size


class Tickets:
    """Makes and reads tickets."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._encryption_key = random_bytes(32)
        self._integrity_key = random_bytes(32)

    def make(self, allocation_id: int, number: int) -> bytes:
        """The ticket with this number of an allocation."""
        salted = (self._seal(_CONTENT.pack(allocation_id, number, salt)) for salt in range(_SALTS))
        return next(ticket for ticket in salted if 0 not in ticket)

    def read(self, ticket: bytes) -> tuple[int, int] | None:
        """The allocation and the number of a ticket; None where we did not make it."""
        if len(ticket) != TICKET_LENGTH:
            return None
        mac = ticket[:_MAC_LENGTH]
        content = self._crypt(mac, ticket[_MAC_LENGTH:])
        if not hmac.compare_digest(self._mac(content), mac):
            return None
        allocation_id, number, _ = _CONTENT.unpack(content)
        return allocation_id, number

    def _seal(self, content: bytes) -> bytes:
        mac = self._mac(content)
        return mac + self._crypt(mac, content)

    def _crypt(self, mac: bytes, content: bytes) -> bytes:
        stream = hmac.digest(self._encryption_key, mac, "sha256")
        return bytes(a ^ b for a, b in zip(content, stream, strict=False))

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._integrity_key, content, "sha256")[:_MAC_LENGTH]
