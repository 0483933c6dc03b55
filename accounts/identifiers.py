"""Names that appear in addresses and keys: random, from the system's CSPRNG, easy to read aloud."""

from __future__ import annotations

import re
import secrets
from typing import Final

ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"  # base32 (RFC 4648 section 6), lower case
PUBLIC_ID_CHARACTERS: Final = 12  # 60 bits: cannot be guessed, and two never meet
PROJECT_PUBLIC_ID: Final = re.compile(r"prj_[a-z2-7]{12}")


def random_base32(characters: int) -> str:
    """`characters` random base32 characters, 5 bits each."""
    return "".join(secrets.choice(ALPHABET) for _ in range(characters))


def organisation_public_id() -> str:
    """`org_` and 12 characters: what an organisation is called outside the database."""
    return f"org_{random_base32(PUBLIC_ID_CHARACTERS)}"


def project_public_id() -> str:
    """`prj_` and 12 characters: what a project is called outside the database."""
    return f"prj_{random_base32(PUBLIC_ID_CHARACTERS)}"


def is_project_public_id(text: str) -> bool:
    """Whether `text` could name a project."""
    return PROJECT_PUBLIC_ID.fullmatch(text) is not None
