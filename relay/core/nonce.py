"""Stateless nonces (RFC 8489 section 9.2): nothing is kept, any node with the key can check one.

    "obMatJos2" | features: 4 characters | time: 16 bits, units of 64 s | MAC: 48 bits
     the nonce cookie, section 9.2         \\____________ 11 characters of Base64 ____/

A nonce is good for one client address and for a time; it survives a restart, and moves across
nodes that share the key. The MAC is keyed BLAKE2b (RFC 7693). It covers the features too: who takes
them away to bid the client down has a nonce that is not ours. Answers to requests too small to be
anybody's carry the 11 characters only.
"""

from __future__ import annotations

import hashlib
import hmac
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence

from relay.core.addresses import SockAddress

COOKIE = b"obMatJos2"
FEATURE_PASSWORD_ALGORITHMS = 0x000001  # bit 0 is the least significant one (erratum 6290)
FEATURE_USERNAME_ANONYMITY = 0x000002
UNIT_SECONDS = 64
_TIME_LENGTH = 2
_MAC_LENGTH = 6
_TIME_MODULUS = 1 << 8 * _TIME_LENGTH
_TAIL_LENGTH = 11
_FEATURES_LENGTH = 4
_PREFIX_LENGTH = len(COOKIE) + _FEATURES_LENGTH


def nonce_make(key: bytes, client: SockAddress, now: float, features: int | None) -> bytes:
    """A nonce for `client`.

    Args:
        key: the newest nonce key.
        client: the address that the nonce is good for.
        now: unix seconds.
        features: what the server offers, FEATURE_... ORed; None for a nonce without the cookie.

    Returns:
        24 ASCII bytes, or 11.
    """
    prefix = (
        b""
        if features is None
        else COOKIE + b2a_base64(features.to_bytes(3, "big"))[:_FEATURES_LENGTH]
    )
    units = int(now) // UNIT_SECONDS
    time = (units % _TIME_MODULUS).to_bytes(_TIME_LENGTH, "big")
    return prefix + b2a_base64(time + _mac(key, prefix, units, client))[:_TAIL_LENGTH]


def nonce_made_at(
    keys: Sequence[bytes], client: SockAddress, nonce: bytes, now: float
) -> int | None:
    """When one of `keys` made this nonce for `client`.

    Of the time a nonce carries the last 16 bits, which is 48 days; the MAC covers all of it.

    Returns:
        Unix seconds, at the earliest: they are known to 64. None where the nonce is not ours, or
        older than that, or made later than `now`.
    """
    parts = _parts(nonce)
    if parts is None:
        return None
    prefix, time, mac = parts
    units = int(now) // UNIT_SECONDS
    units -= (units - int.from_bytes(time, "big")) % _TIME_MODULUS
    for key in keys:
        if hmac.compare_digest(_mac(key, prefix, units, client), mac):
            return units * UNIT_SECONDS
    return None


def nonce_is_fresh(made_at: int, now: float, lifetime_seconds: float) -> bool:
    """Whether a nonce that was made then (`nonce_made_at`) is still good.

    It ends up to 64 seconds too early, and never too late.
    """
    return int(now) - made_at <= lifetime_seconds


def nonce_offers_algorithms(nonce: bytes) -> bool:
    """Whether a nonce says that the server offered password algorithms."""
    return nonce.startswith(COOKIE)


def _parts(nonce: bytes) -> tuple[bytes, bytes, bytes] | None:
    prefix, tail = nonce[:-_TAIL_LENGTH], nonce[-_TAIL_LENGTH:]
    if len(prefix) not in (0, _PREFIX_LENGTH):
        return None
    try:
        raw = a2b_base64(tail + b"=")
    except Base64Error:
        return None
    if len(raw) != _TIME_LENGTH + _MAC_LENGTH:
        return None
    return prefix, raw[:_TIME_LENGTH], raw[_TIME_LENGTH:]


def _mac(key: bytes, prefix: bytes, units: int, client: SockAddress) -> bytes:
    covered = prefix + f"{units} {client[0]} {client[1]}".encode()
    if len(key) > hashlib.blake2b.MAX_KEY_SIZE:
        key = hashlib.blake2b(key).digest()
    return hashlib.blake2b(covered, key=key, digest_size=_MAC_LENGTH).digest()
