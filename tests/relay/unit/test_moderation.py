"""When the relay's thread rests: while datagrams come fast enough to gather, and not too fast."""

from __future__ import annotations

import pytest

from relay.transports.moderation import BUSY, MANY, Moderation

REST = 0.00025
DATAGRAM_SECONDS = 8e-6  # what one costs
TURN_SECONDS = 0.005


class Times:
    """A moderation at a steady rate, and how often it rested."""

    def __init__(self, seconds: float = REST) -> None:
        self.now = 1000.0
        self.rests = 0
        self.moderation = Moderation(seconds)

    def look(self, taken: int, elapsed: float, looked: float = 0.0) -> float:
        """Rest as it says after a look; how long that was."""
        self.now += elapsed
        seconds = self.moderation.rest_seconds(taken, looked, self.now)
        self.rests += seconds > 0
        self.now += seconds
        return seconds

    def looks(self, rate: float, count: int) -> int:
        """Look as often, each time once a datagram is there; how often it rested.

        A look goes on until nothing waits, also of what comes meanwhile, or its time is over.
        """
        before, waiting = self.rests, 0.0
        for _ in range(count):
            began = self.now
            idle = max(0.0, (1 - waiting) / rate)
            busy = rate * DATAGRAM_SECONDS
            looked = min((waiting + idle * rate) * DATAGRAM_SECONDS / (1 - busy), TURN_SECONDS)
            taken = round(looked / DATAGRAM_SECONDS)
            self.look(taken, idle + looked, looked)
            waiting = max(0.0, waiting + (self.now - began) * rate - taken)
        return self.rests - before


@pytest.mark.parametrize(
    ("rate", "rests"), [(1_000, False), (8_000, False), (20_000, True), (60_000, True)]
)
def test_thread_rests_where_several_datagrams_gather(rate: float, rests: bool) -> None:
    times = Times()
    times.looks(rate, 1000)
    found = times.looks(rate, 100)
    assert found >= 95 if rests else found == 0


def test_thread_that_has_enough_to_do_rests_now_and_then_at_most() -> None:
    times = Times()
    times.looks(120_000, 2000)  # 96 % of its time
    began, rests = times.now, times.looks(120_000, 500)
    assert rests * REST < 0.05 * (times.now - began)


def test_rest_is_shorter_where_sockets_might_overflow() -> None:
    times, rest = Times(), 0.0
    for _ in range(1000):  # half of the time passes in looks
        rest = times.look(2 * MANY, REST)
    assert rest == pytest.approx(REST)  # until as many have gathered
    for _ in range(1000):
        rest = times.look(round((REST + rest) * 4 * MANY / REST), REST)
    assert rest == pytest.approx(REST / 4)


def test_look_that_took_long_is_followed_by_another() -> None:
    times = Times()
    times.looks(20_000, 1000)
    assert times.look(5, REST, BUSY * REST)
    assert not times.look(5, REST, BUSY * REST + 1e-6)


def test_burst_after_silence_is_no_reason_to_rest() -> None:
    times = Times()
    for _ in range(100):  # a picture of one call: ten datagrams in a row, every 33 ms
        for gap in (0.033, *[0.00003] * 9):
            assert not times.look(1, gap)


def test_requests_are_no_reason_to_rest() -> None:
    times = Times()
    times.looks(20_000, 1000)
    assert not times.look(0, 0.00005)


def test_load_that_ends_lets_the_thread_wait_for_what_comes() -> None:
    times = Times()
    times.looks(20_000, 1000)
    times.look(1, 0.1)
    assert not times.look(1, 0.001)


def test_no_rest_where_it_is_switched_off() -> None:
    times = Times(0.0)
    assert times.looks(20_000, 1000) == 0
