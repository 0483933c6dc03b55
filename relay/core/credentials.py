"""Time-limited credentials (draft-uberti-behave-turn-rest): checked without a database.

    username = <expires_at, unix seconds> ":" <project> "/" <credential> [ "/" <label> ]
    password = Base64(HMAC-SHA1(secret, username))

Who does not know a secret cannot make a password, so the project in the username can be trusted
once the password was right.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from functools import lru_cache
from typing import NamedTuple

# Bytes; RFC 8489 section 14.3 says fewer than 509, and that 763 must be read.
USERNAME_LENGTH_MAX = 508
USERNAME_LENGTH_READ_MAX = 763
_EXPIRY_DIGITS_MAX = 12


class TurnUsername(NamedTuple):
    """What a username says: when it ends, whose it is, and the customer's label or ''."""

    expires_at: int
    project: str
    credential: str
    label: str


def username_format(*, expires_at: int, project: str, credential: str, label: str = "") -> str:
    """The username of a credential.

    Args:
        expires_at: unix seconds.
        project: the project's public id.
        credential: the credential's id.
        label: whatever the customer called it; may be empty.

    Raises:
        ValueError: longer than 508 bytes.
    """
    username = f"{expires_at}:{project}/{credential}" + (f"/{label}" if label else "")
    if len(username.encode()) > USERNAME_LENGTH_MAX:
        raise ValueError(f"the username would be longer than {USERNAME_LENGTH_MAX} bytes")
    return username


@lru_cache(maxsize=1024)
def username_parse(username: str) -> TurnUsername | None:
    """Read a username; None where it is not of our form (a client is told no more than 401).

    Several steps of one request ask, so the last answers are kept.
    """
    expiry, colon, rest = username.partition(":")
    if not colon or not (expiry.isascii() and expiry.isdecimal()):
        return None
    if len(expiry) > _EXPIRY_DIGITS_MAX:
        return None
    if len(username.encode(errors="replace")) > USERNAME_LENGTH_MAX:  # it may come from anywhere
        return None
    project, _, rest = rest.partition("/")
    credential, _, label = rest.partition("/")
    if not project or not credential:
        return None
    return TurnUsername(int(expiry), project, credential, label)


def password_derive(secret: bytes, username: str) -> str:
    """The password that belongs to `username`: Base64(HMAC-SHA1(secret, username))."""
    return b64encode(hmac.digest(secret, username.encode(), "sha1")).decode()
