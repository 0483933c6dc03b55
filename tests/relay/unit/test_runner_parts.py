"""What the relay's runner brings to the core: time, randomness, this host's addresses."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from relay.clock import Clock
from relay.host_addresses import host_addresses
from relay.machine import random_bytes_pool


class Times:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.steady_seconds = 100.0
        self.wall_seconds = 1_800_000_000.0

    def pass_seconds(self, seconds: float) -> None:
        self.steady_seconds += seconds
        self.wall_seconds += seconds


def test_time_of_day_follows_the_systems_clock_and_steady_time_does_not() -> None:
    times = Times()
    clock = Clock(lambda: times.steady_seconds, lambda: times.wall_seconds)
    times.pass_seconds(10)
    assert clock.unix() == 1_800_000_010.0
    assert clock.follow() == 0.0
    times.wall_seconds += 7200
    assert clock.unix() == 1_800_000_010.0
    assert clock.follow() == 7200.0
    assert clock.unix() == 1_800_007_210.0
    times.wall_seconds -= 7200
    assert clock.follow() == -7200.0
    assert clock.steady() == 110.0


def test_small_differences_are_left_alone() -> None:
    times = Times()
    clock = Clock(lambda: times.steady_seconds, lambda: times.wall_seconds)
    times.wall_seconds += 0.4
    assert clock.follow() == 0.0


@pytest.mark.parametrize("count", [1, 12, 100])
def test_pooled_random_bytes_are_as_long_as_asked_and_never_the_same(count: int) -> None:
    take = random_bytes_pool(1000)
    pieces = [take(count) for _ in range(500)]
    assert {len(piece) for piece in pieces} == {count}
    if count > 4:
        assert len(set(pieces)) == 500


def test_pooled_random_bytes_are_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []

    def drawing(count: int) -> bytes:
        drawn.append(os.urandom(count))
        return drawn[-1]

    monkeypatch.setattr(secrets, "token_bytes", drawing)
    take = random_bytes_pool(100)
    assert b"".join(take(10) for _ in range(30)) == b"".join(drawn)


def test_addresses_of_this_host_are_read(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(
        "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n"
        "     |-- 203.0.113.9\n        /32 host LOCAL\n     |-- 203.0.113.255\n"
        "        /32 link BROADCAST\n"
    )
    (tmp_path / "if_inet6").write_text("20010db8000000000000000000000001 02 40 00 80 eth0\n")
    assert host_addresses(tmp_path) == {"127.0.0.1", "203.0.113.9", "2001:db8::1"}
    assert host_addresses(tmp_path / "nowhere") == set()
    assert "127.0.0.1" in host_addresses()
