"""What a test does without a program or a privilege that it needs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def program_missing(name: str, *, package: str) -> NoReturn:
    """Skip the test; where nothing may be skipped (`.ci/run` says so), fail it."""
    skip(f"{name} is not installed (Debian, Ubuntu: apt install {package})")


def skip(reason: str) -> NoReturn:
    """Skip the test, for want of a privilege say; fail it where nothing may be skipped."""
    if os.environ.get("MINDMORE_TESTS_NO_SKIPS"):
        pytest.fail(reason)
    pytest.skip(reason)
