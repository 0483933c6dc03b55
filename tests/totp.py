"""The code that an authenticator app shows (RFC 6238 with its defaults), computed independently."""

from __future__ import annotations

import base64
import hashlib
import hmac


def totp_code(secret: str, *, unix_seconds: int) -> str:
    """Six digits for the base32 `secret` in the 30 seconds around `unix_seconds`."""
    counter = (unix_seconds // 30).to_bytes(8, "big")
    digest = hmac.digest(base64.b32decode(secret), counter, hashlib.sha1)
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 1_000_000:06}"
