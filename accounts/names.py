"""What people may call projects, keys, organisations and themselves."""

from __future__ import annotations

import unicodedata
from typing import Final

from django.core.exceptions import ValidationError

# They turn the order of what follows around, beyond the name: embeddings, overrides, isolates.
BIDIRECTIONAL: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
CONTROL_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
UNSEEN_CATEGORIES: Final = frozenset({"Cf", "Cn", "Co", "Me", "Mn", "Zs"})
# Letters and a symbol by category, but nothing to look at: fillers of Hangul, the empty Braille.
UNSEEN: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def name_validate(name: str) -> None:
    """Refuse a name that nobody could read or that would disturb what stands around it.

    Joiners and marks within a name stay: scripts and emoji need them.

    Raises:
        ValidationError: with words for the person who typed it.
    """
    categories = [unicodedata.category(character) for character in name]
    if CONTROL_CATEGORIES.intersection(categories):
        raise ValidationError("A name may not have line breaks, tabs or other control characters.")
    if BIDIRECTIONAL.intersection(name):
        raise ValidationError(
            "A name may not have invisible characters that change the direction of writing."
        )
    if all(
        category in UNSEEN_CATEGORIES or character in UNSEEN
        for character, category in zip(name, categories, strict=True)
    ):
        raise ValidationError("A name needs at least one character that can be seen.")
