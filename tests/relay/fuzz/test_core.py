"""A short run of the fuzzer; `make fuzz` is the long one (Security 18)."""

from __future__ import annotations

import pytest

from tests.relay.fuzz.__main__ import Fuzzer

CASES = 20_000


@pytest.mark.parametrize("seed", [1, 8489, 8656])
def test_no_bytes_raise_anything_but_malformed(seed: int) -> None:
    fuzzer = Fuzzer(seed)
    for number in range(CASES):
        fuzzer.case(number)
    assert fuzzer.answered > CASES / 8
