"""FINGERPRINT, both kinds of integrity, and the long-term keys (RFC 8489 sections 9.2, 14.5-14.7).

Two choices are independent of each other: the password algorithm, which turns username, realm and
password into a key, and the integrity attribute, which says how the message is covered.
"""

from __future__ import annotations

import hashlib
import hmac
from binascii import crc32
from typing import NamedTuple

from relay.core import attributes

FINGERPRINT_XOR = 0x5354554E

MD5 = 0x0001  # the IANA registry of STUN password algorithms
SHA256 = 0x0002
# What is offered: algorithm and the length of its parameters, which neither has. A client takes the
# first that it knows (RFC 8489 section 9.2.5), and MD5 is for those who know nothing else.
PASSWORD_ALGORITHMS_VALUE = bytes((0, SHA256, 0, 0, 0, MD5, 0, 0))


class IntegrityKind(NamedTuple):
    """One of the two integrity attributes: its type, its length in bytes, its hash."""

    attribute: int
    length: int
    digest: str


SHA1_INTEGRITY = IntegrityKind(attributes.MESSAGE_INTEGRITY, 20, "sha1")
SHA256_INTEGRITY = IntegrityKind(attributes.MESSAGE_INTEGRITY_SHA256, 32, "sha256")


class LongTermKeys(NamedTuple):
    """What is kept of a user in the place of the password: a key for each password algorithm."""

    md5: bytes
    sha256: bytes

    def of(self, algorithm: int) -> bytes:
        """The key for one algorithm, MD5 or SHA256."""
        return self.sha256 if algorithm == SHA256 else self.md5


NO_KEYS = LongTermKeys(b"", b"")  # of who has an access token


class IntegrityKey(NamedTuple):
    """What covers a message: the key, and the attribute that carries the result."""

    key: bytes
    kind: IntegrityKind = SHA1_INTEGRITY


def long_term_keys_derive(username: str, realm: str, password: str) -> LongTermKeys:
    """The hashes of username ":" realm ":" password (RFC 8489 section 9.2.2).

    Args:
        username: as sent.
        realm: of the server.
        password: made by the relay itself, in ASCII.

    Returns:
        16 bytes for MD5, 32 for SHA-256.
    """
    text = f"{username}:{realm}:{password}".encode()
    md5 = hashlib.md5(text, usedforsecurity=False).digest()
    return LongTermKeys(md5, hashlib.sha256(text).digest())


def userhash(username: str, realm: str) -> bytes:
    """SHA-256(username ":" realm), 32 bytes: the value of USERHASH (section 14.4)."""
    return hashlib.sha256(f"{username}:{realm}".encode()).digest()


def message_integrity(key: bytes, kind: IntegrityKind, covered: bytes) -> bytes:
    """The HMAC over `covered`: the message up to the attribute, its length already set."""
    return hmac.digest(key, covered, kind.digest)


def fingerprint(covered: bytes) -> bytes:
    """CRC-32 over `covered`, XORed with "STUN": 4 bytes."""
    return (crc32(covered) ^ FINGERPRINT_XOR).to_bytes(4, "big")
