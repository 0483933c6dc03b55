"""Interrupt moderation: under load the thread rests for a moment, and takes what came together.

To be woken costs a thread as much as to relay two datagrams, and a look at the sockets as much as
one. So while datagrams come fast enough for several to gather in a rest, it rests after each look,
and then takes all that has gathered:

    datagrams in a rest:    under FEWEST      FEWEST to MOST             over MOST
                            no rest           a rest after each look     no rest

More than MOST might overflow a socket. Nor does it rest after a look that took BUSY times as long
as a rest: the thread has enough to do without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FEWEST: Final = 3
MOST: Final = 64
BUSY: Final = 2
SMOOTHING: Final = 1 / 8
RARE: Final = 1.0  # seconds between two datagrams, to begin with


class Moderation:
    """Decides when the thread rests, and does.

    Attributes:
        seconds: how long a rest is; 0: there is none.

    Args:
        sleep: does nothing for so many seconds.
    """

    def __init__(self, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self.seconds = seconds
        self._sleep = sleep
        self._gap = RARE  # seconds from one datagram to the next, on average
        self._taken_at = 0.0

    def rest(self, taken: int, looked_seconds: float, now: float) -> bool:
        """Rest, where datagrams come so fast that several will have gathered.

        Args:
            taken: how many have come since this was asked last.
            looked_seconds: how long that took.
            now: steady seconds, when they were taken.

        Returns:
            Whether it has rested.
        """
        if not taken:
            return False
        gap = min((now - self._taken_at) / taken, RARE)
        self._gap += (gap - self._gap) * SMOOTHING
        self._taken_at = now
        if not FEWEST * self._gap <= self.seconds <= MOST * self._gap:
            return False
        if looked_seconds > BUSY * self.seconds:
            return False
        self._sleep(self.seconds)
        return True
