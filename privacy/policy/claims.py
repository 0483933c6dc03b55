"""The claims of the policy: `claims.toml`, read and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

CLAIMS_PATH = Path(__file__).with_name("claims.toml")


class Status(StrEnum):
    """What shows that a claim is true; `claims.toml` explains each."""

    PROVEN = "proven"
    OPERATOR = "operator"
    LAW = "law"


@dataclass(frozen=True)
class Claim:
    """One promise.

    Attributes:
        text: the sentence, with names in braces for what registers and settings say.
        status: what shows that it is true.
        tests: pytest node ids of the tests that show it.
    """

    text: str
    status: Status
    tests: tuple[str, ...] = ()


@cache
def claims_load() -> Mapping[str, Claim]:
    """Every claim by its id.

    Raises:
        ValueError: a status is none of `Status`, or a claim is proven by no test.
    """
    content = tomllib.loads(CLAIMS_PATH.read_text())
    claims = {
        claim: Claim(entry["text"], Status(entry["status"]), tuple(entry.get("tests", ())))
        for claim, entry in content.items()
    }
    for claim, entry in claims.items():
        if (entry.status is Status.PROVEN) != bool(entry.tests):
            raise ValueError(f"{claim}: a proven claim has tests, and no other claim has any")
    return claims
