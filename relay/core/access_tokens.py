"""Access tokens: what an authorization server seals for this server (RFC 7635 section 6.2).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |     nonce length: 12          |        nonce (12 bytes)  ....
    |  sealed: key length (16 bits), mac_key, timestamp (48 bits of seconds, 16 bits of 1/64000 s),
    |          lifetime (32 bits of seconds)                   ....
    |  authentication tag (16 bytes)                           ....

Sealed with AES-GCM (RFC 5116) under a key that only we and the authorization server have; the name
of this server is authenticated with it, so a token for another server cannot be opened here. The
client knows the mac_key from elsewhere, and covers its requests with it.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from relay.core.integrity import userhash

KEY_LENGTHS = (16, 32)  # AEAD_AES_128_GCM and AEAD_AES_256_GCM
NONCE_LENGTH = 12  # RFC 5116 section 5.1
TAG_LENGTH = 16
MAC_KEY_LENGTH_MIN = 20  # 160 bits MUST be supported; HMAC-SHA1 has no use for less
MAC_KEY_LENGTH_MAX = 64
MAC_KEY_LENGTH_COTURN = 16  # coturn, client and server, covers with so much of a key for SHA-1
FRACTIONS = 64000  # of a second
DELTA_SECONDS = 5  # what clocks may differ by; RFC 7635 section 7 recommends it
CREDENTIAL_PREFIX = "tok_"
CREDENTIAL_HASH_LENGTH = 10  # bytes; 16 characters of Base32

# Key, nonce, what is to be sealed or opened, what is authenticated with it (RFC 5116 section 2).
Seal = Callable[[bytes, bytes, bytes, bytes], bytes]
Open = Callable[[bytes, bytes, bytes, bytes], bytes | None]

_LENGTH = Struct("!H")
_TIMES = Struct("!QI")


class AccessToken(NamedTuple):
    """What a token says.

    Attributes:
        mac_key: what requests and answers are covered with.
        issued_at: unix seconds.
        lifetime_seconds: from then on.
    """

    mac_key: bytes
    issued_at: float
    lifetime_seconds: int

    def is_live(self, unix_now: float) -> bool:
        """Whether it is of this time (RFC 7635 section 7): neither over, nor from further ahead
        than it lasts. What does not last at all never is: any lifetime would go beyond it."""
        if not self.lifetime_seconds:
            return False
        return self.lifetime_seconds + DELTA_SECONDS > abs(unix_now - self.issued_at)

    def seconds_left(self, unix_now: float) -> float:
        """The longest lifetime of an allocation now (RFC 7635 section 9): never the token's own
        exceeded, whatever the clocks say."""
        left = self.lifetime_seconds + DELTA_SECONDS - abs(unix_now - self.issued_at)
        return min(self.lifetime_seconds, left)


class TokenKey(NamedTuple):
    """A key that an authorization server seals tokens with.

    Attributes:
        kid: its id, which clients send as USERNAME.
        project: the public id of the project that pays for what its tokens relay.
        key: 16 or 32 bytes.
    """

    kid: str
    project: str
    key: bytes


@dataclass(frozen=True)
class ThirdParty:
    """Whose tokens are accepted.

    Attributes:
        server_name: of this server, as authorization servers know it.
        keys: those of every authorization server, and old ones until their tokens are over.
        gcm_open: AES-GCM, which the standard library does not have.
    """

    server_name: str
    keys: tuple[TokenKey, ...]
    gcm_open: Open

    def key(self, kid: str) -> TokenKey | None:
        """The key with this id."""
        return next((key for key in self.keys if key.kid == kid), None)

    def open(self, key: bytes, value: bytes) -> AccessToken | None:
        """Open the value of ACCESS-TOKEN.

        Args:
            key: 16 or 32 bytes.
            value: as it came from the network.

        Returns:
            What it says; None where it was sealed with another key or for another server, was
            tampered with, or is no token at all.
        """
        start = _LENGTH.size + NONCE_LENGTH
        if len(value) < start + TAG_LENGTH or _LENGTH.unpack_from(value)[0] != NONCE_LENGTH:
            return None
        nonce, sealed = value[_LENGTH.size : start], value[start:]
        content = self.gcm_open(key, nonce, sealed, self.server_name.encode())
        return None if content is None else _content_read(content)

    def kid_of(self, hashed: bytes, realm: str) -> str | None:
        """The key id whose USERHASH this is."""
        return next((key.kid for key in self.keys if userhash(key.kid, realm) == hashed), None)


def token_seal(
    gcm_seal: Seal, key: bytes, server_name: str, token: AccessToken, nonce: bytes
) -> bytes:
    """The value of ACCESS-TOKEN.

    Args:
        gcm_seal: AES-GCM.
        key: 16 or 32 bytes.
        server_name: of the server that is to open it.
        token: what it says.
        nonce: 12 bytes, never used with this key before.
    """
    seconds, fraction = divmod(token.issued_at, 1)
    timestamp = int(seconds) << 16 | int(fraction * FRACTIONS)
    content = (
        _LENGTH.pack(len(token.mac_key))
        + token.mac_key
        + _TIMES.pack(timestamp, token.lifetime_seconds)
    )
    sealed = gcm_seal(key, nonce, content, server_name.encode())
    return _LENGTH.pack(len(nonce)) + nonce + sealed


def _content_read(content: bytes) -> AccessToken | None:
    length = len(content) - _LENGTH.size - _TIMES.size
    if not MAC_KEY_LENGTH_MIN <= length <= MAC_KEY_LENGTH_MAX:
        return None
    if _LENGTH.unpack_from(content)[0] != length:
        return None
    times = _LENGTH.size + length
    timestamp, lifetime = _TIMES.unpack_from(content, times)
    issued_at = (timestamp >> 16) + (timestamp & 0xFFFF) / FRACTIONS
    return AccessToken(content[_LENGTH.size : times], issued_at, lifetime)


def token_credential(value: bytes) -> str:
    """The credential id of a token: what revokes it, and what its refusals are found by.

    Args:
        value: of ACCESS-TOKEN; whoever minted it can work this out.
    """
    digest = hashlib.sha256(value).digest()[:CREDENTIAL_HASH_LENGTH]
    return CREDENTIAL_PREFIX + b32encode(digest).decode().lower()
