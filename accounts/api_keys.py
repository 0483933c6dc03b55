"""The text of an API key, and what is kept of it. No database here.

mm_k3vq7x2a_Jt0w…43 url-safe characters…
|---------| prefix: stored, shown in lists, finds the row
|-----------------------------------------| SHA-256 of the whole: stored
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

from accounts.identifiers import random_base32

MARK: Final = "mm_"  # lets a scanner of leaked secrets recognise one
PREFIX_CHARACTERS: Final = 8
SECRET_BYTES: Final = 32
TEXT: Final = re.compile(r"mm_[a-z2-7]{8}_[A-Za-z0-9_-]{43}")


def api_key_text_make() -> str:
    """A new key; its secret part has 256 random bits."""
    return f"{MARK}{random_base32(PREFIX_CHARACTERS)}_{secrets.token_urlsafe(SECRET_BYTES)}"


def api_key_is_well_formed(text: str) -> bool:
    """Whether `text` could be a key at all; what could not is never looked up."""
    return TEXT.fullmatch(text) is not None


def api_key_prefix(text: str) -> str:
    """The part that is no secret: `mm_` and 8 characters."""
    return text[: len(MARK) + PREFIX_CHARACTERS]


def api_key_hash(text: str) -> str:
    """SHA-256 of the whole key, 64 hexadecimal characters."""
    return hashlib.sha256(text.encode()).hexdigest()
