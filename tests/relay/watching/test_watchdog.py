"""How long the event loop was held up, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
import uvloop

from relay.watching.watchdog import LOG_SECONDS, TICK_SECONDS, WINDOW_SECONDS, Watchdog

Lines = pytest.CaptureFixture[str]


class Times:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(capsys: Lines) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_block_is_seen_and_the_computing_in_it(capsys: Lines) -> None:
    async def hold_up() -> Watchdog:
        watchdog = Watchdog()
        watchdog.start()
        await asyncio.sleep(0.05)
        time.sleep(0.3)  # noqa: ASYNC251 - what must not be
        await asyncio.sleep(0.05)
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        await asyncio.sleep(0.05)
        watchdog.stop()
        return watchdog

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        watchdog = runner.run(hold_up())
    assert watchdog.blocks >= 2
    assert watchdog.longest_seconds >= 0.3 - TICK_SECONDS
    first = said(capsys)[0]
    assert (first["event"], first["level"], first["times"]) == ("loop_blocked", "warning", 1)
    assert first["seconds"] >= 0.3 - TICK_SECONDS
    assert first["computing_seconds"] < 0.2  # it slept


def test_idle_loop_is_not_held_up() -> None:
    async def idle() -> list[float]:
        longest = []
        for _ in range(20):
            watchdog = Watchdog()
            watchdog.start()
            await asyncio.sleep(0.05)
            watchdog.stop()
            longest.append(watchdog.longest_seconds)
        return longest

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        longest = runner.run(idle())
    assert min(longest) < 0.01  # where the machine is busy, at least one of them is quiet


def test_log_gets_one_line_a_minute_with_the_number_since(capsys: Lines) -> None:
    times = Times()
    watchdog = Watchdog(times, lambda: 0.0)
    for seconds in (0.04, 0.06, 0.2, 0.07):
        watchdog.late(seconds, 0.01, times.now)
        times.now += 1
    times.now += LOG_SECONDS
    watchdog.late(0.051, 0.05, times.now)
    lines = said(capsys)
    assert [line["times"] for line in lines] == [1, 3]
    assert [line["longest_seconds"] for line in lines] == [0.06, 0.2]
    assert [line["seconds"] for line in lines] == [0.06, 0.051]
    assert watchdog.blocks == 4


def test_longest_is_that_of_the_last_one_to_two_minutes() -> None:
    times = Times()
    watchdog = Watchdog(times, lambda: 0.0)
    watchdog.late(0.03, 0, times.now)
    times.now += WINDOW_SECONDS
    watchdog.late(0.01, 0, times.now)
    assert watchdog.longest_seconds == 0.03
    times.now += WINDOW_SECONDS
    assert watchdog.longest_seconds == 0.01
    times.now += 10 * WINDOW_SECONDS
    assert watchdog.longest_seconds == 0.0


def test_watching_costs_a_thousandth_of_the_processor_at_most() -> None:
    times = Times()
    watchdog = Watchdog(times)
    begun = time.thread_time()
    for _ in range(10_000):
        watchdog.late(0.0001, 0.0, times.now)
    tick = (time.thread_time() - begun) / 10_000
    assert tick * 100 < 0.001  # a hundred a second
