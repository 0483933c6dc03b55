"""The bench's arithmetic: what counts as better, and as good enough."""

from __future__ import annotations

from math import inf

import pytest

from tests.bench.__main__ import Search
from tests.bench.delay import percentiles_of
from tests.bench.report import Row, table


def row(first: list[float], second: list[float], **goal: float) -> Row:
    made = Row("cost", "us", higher_is_better=False, **goal)  # type: ignore[arg-type]
    made.values = {"first": first, "second": second}
    return made


def test_ratio_compares_neighbours_and_takes_the_middle() -> None:
    assert row([2, 4, 30], [1, 4, 15]).ratio == 0.5


def test_half_the_cost_is_twice_as_good() -> None:
    assert row([1], [2]).ratio == 2


@pytest.mark.parametrize(("cost", "passed"), [(1.42, True), (1.44, False)])
def test_goal_is_a_share_of_the_other_server(cost: float, passed: bool) -> None:
    assert row([cost], [1.0], ratio_min=0.7).passed is passed


def test_speed_is_what_the_middle_round_shows() -> None:
    made = Row("allocations", "a second", higher_is_better=True, value_min=5000)
    made.values = {"first": [4000, 5100, 5000], "second": [9000, 8000, 7000]}
    assert made.passed
    made.values["first"][2] = 4999
    assert not made.passed


def test_table_says_which_goal_is_missed() -> None:
    text = table(("mindmore", "coturn"), [row([6000], [22_000], value_max=5000)])
    assert text.splitlines()[1].split() == [
        *("cost,", "us", "6,000.0", "22,000.0", "3.67x"),
        *("at", "most", "5,000", "FAIL"),
    ]


def test_search_ends_near_the_rate_that_is_carried() -> None:
    search = Search(400_000)
    for _ in range(12):
        carried = min(search.rate, 123_000)
        search.carried({"sent": search.rate, "received": carried, "seconds": 1.0})
        search.narrow()
    assert 122_000 < search.best <= 124_000


def test_datagram_that_is_lost_is_infinitely_late() -> None:
    assert percentiles_of([1.0] * 1000, 1000) == (1.0, 1.0)
    assert percentiles_of([1.0] * 900, 1000) == (1.0, inf)
    assert percentiles_of([], 1000) == (inf, inf)
