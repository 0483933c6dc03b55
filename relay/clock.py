"""The two times of a relay."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

CLOCK_STEP_SECONDS_MIN = 0.5
STEADY = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class Clock:
    """Two times: a steady one for lifetimes, and the time of day for what is written down.

    The steady one counts on while the machine is suspended and never jumps. The time of day
    follows the system's clock when that is set, looked at with every flush.

    Args:
        steady: seconds since whenever.
        wall: unix seconds, as the system has them.
    """

    def __init__(
        self,
        steady: Callable[[], float] = STEADY,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - the one place that reads it
    ) -> None:
        self.steady = steady
        self._wall = wall
        self.unix_offset_seconds = wall() - steady()

    def unix(self) -> float:
        """The time of day, unix seconds."""
        return self.steady() + self.unix_offset_seconds

    def follow(self) -> float:
        """Take over the system's clock where that was set.

        Returns:
            By how many seconds it was set; 0 where it was not.
        """
        offset = self._wall() - self.steady()
        step = offset - self.unix_offset_seconds
        if abs(step) < CLOCK_STEP_SECONDS_MIN:
            return 0.0
        self.unix_offset_seconds = offset
        return step
