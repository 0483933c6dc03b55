"""Interrupt moderation: under load the thread rests for a moment, and takes what came together.

To be woken costs a thread as much as to relay two datagrams, and a look at the sockets as much as
one. So while datagrams come fast enough for several to gather, it rests after each look, and then
takes all that has gathered:

    datagrams in the longest rest:    under FEWEST    FEWEST to MANY       over MANY
                                      no rest         the longest rest     until MANY have gathered

It does not rest after a look that took BUSY times as long as a rest: it has enough to do without.
"""

from __future__ import annotations

from typing import Final

FEWEST: Final = 3
MANY: Final = 48
BUSY: Final = 2
SMOOTHING: Final = 1 / 8
RARE: Final = 1.0  # seconds between two datagrams, to begin with


class Moderation:
    """Decides how long the thread is to rest.

    Attributes:
        seconds: how long the longest rest is; 0: there is none.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._gap = RARE  # seconds from one datagram to the next, on average
        self._taken_at = 0.0

    def rest_seconds(self, taken: int, looked_seconds: float, now: float) -> float:
        """How long to rest after a look; 0: not at all.

        Args:
            taken: how many datagrams were taken.
            looked_seconds: how long that took.
            now: steady seconds, when they were taken.
        """
        if not taken:
            return 0.0
        gap = min((now - self._taken_at) / taken, RARE)
        self._gap += (gap - self._gap) * SMOOTHING
        self._taken_at = now
        if FEWEST * self._gap > self.seconds:
            return 0.0
        rest = min(self.seconds, MANY * self._gap)
        return rest if looked_seconds <= BUSY * rest else 0.0
