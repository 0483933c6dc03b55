"""How long the event loop was held up: a timer that looks how late it is.

    tick ── 25 ms ── tick ── 25 ms + what held it up ── tick

It sees every block but for the last 25 ms of it, and costs nothing per packet. A late tick also
says how much of the time this thread was computing: the rest it waited, for a disk or for another
program that had the processor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from relay.log import log

TICK_SECONDS: Final = 0.025
BLOCK_SECONDS: Final = 0.05
WINDOW_SECONDS: Final = 60.0
LOG_SECONDS: Final = 60.0


class Watchdog:
    """Watches one event loop.

    Attributes:
        blocks: how often it was held up for more than BLOCK_SECONDS.

    Args:
        clock: seconds that never jump.
        computing: CPU seconds of the calling thread.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        computing: Callable[[], float] = time.thread_time,
    ) -> None:
        self.blocks = 0
        self._clock = clock
        self._computing = computing
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._computed = 0.0
        # The longest of this window and of the one before it.
        self._longest = [0.0, 0.0]
        self._window_ends = clock() + WINDOW_SECONDS
        self._unsaid = 0
        self._unsaid_longest = 0.0
        self._says_again_at = clock()

    @property
    def longest_seconds(self) -> float:
        """The longest block of the last one to two minutes."""
        self._window_turn(self._clock())
        return max(self._longest)

    def start(self) -> None:
        """Watch the running loop."""
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = self._clock() + TICK_SECONDS
        self._computed = self._computing()
        self._timer = loop.call_later(TICK_SECONDS, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._clock()
        self.late(now - self._due, self._computing() - self._computed, now)
        self._arm(loop)

    def late(self, seconds: float, computing_seconds: float, now: float) -> None:
        """Take one tick in.

        Args:
            seconds: how late it is.
            computing_seconds: for how long this thread has computed since the tick before.
            now: the time.
        """
        self._window_turn(now)
        self._longest[0] = max(self._longest[0], seconds)
        if seconds <= BLOCK_SECONDS:
            return
        self.blocks += 1
        self._unsaid += 1
        self._unsaid_longest = max(self._unsaid_longest, seconds)
        if now < self._says_again_at:
            return
        log(
            "loop_blocked",
            level="warning",
            seconds=round(seconds, 3),
            computing_seconds=round(computing_seconds, 3),
            times=self._unsaid,
            longest_seconds=round(self._unsaid_longest, 3),
        )
        self._unsaid, self._unsaid_longest = 0, 0.0
        self._says_again_at = now + LOG_SECONDS

    def _window_turn(self, now: float) -> None:
        if now < self._window_ends:
            return
        before = self._longest[0] if now < self._window_ends + WINDOW_SECONDS else 0.0
        self._longest = [0.0, before]
        self._window_ends = now + WINDOW_SECONDS
