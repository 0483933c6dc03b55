"""Rating: free bytes once, the price of the hour, and never less for more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.rating import (
    CountedBytes,
    HourOfUsage,
    Price,
    PriceMissingError,
    RatedLine,
    usage_rate,
)

START = datetime(2026, 3, 1, tzinfo=UTC)
GB = 10**9
PRICE = Price(1, START - timedelta(days=9), Decimal("0.05"), 0, CountedBytes.CLIENT_SENT)


def used(sent: int, *, project: int = 1, hour: int = 0, received: int = 0) -> HourOfUsage:
    return HourOfUsage(project, START + timedelta(hours=hour), sent, received)


def rate(hours: list[HourOfUsage], *prices: Price) -> list[RatedLine]:
    return usage_rate(hours=hours, prices=prices or [PRICE], starts_at=START)


HOURS = st.lists(
    st.builds(
        used,
        sent=st.integers(0, 3 * GB),
        project=st.integers(1, 3),
        hour=st.integers(0, 40),
        received=st.integers(0, 3 * GB),
    ),
    max_size=12,
    unique_by=lambda hour: (hour.project_id, hour.hour),
)
BOOKS = st.builds(
    lambda free, prices: [
        Price(
            number,
            START + timedelta(hours=20 * number - 10),
            price,
            free if number == 0 else 7,
            counted,
        )
        for number, (price, counted) in enumerate(prices)
    ],
    free=st.integers(0, 5 * GB),
    prices=st.lists(
        st.tuples(st.decimals(0, 2, places=4), st.sampled_from(CountedBytes)),
        min_size=1,
        max_size=3,
    ),
)


def test_line_shows_every_byte_even_where_the_amount_is_nothing() -> None:
    [line] = rate([used(1_234_567)])
    assert (line.metered_bytes, line.free_bytes, line.amount_cents) == (1_234_567, 0, 0)


def test_hours_of_a_project_are_rounded_together() -> None:
    hours = [used(GB // 25, hour=hour) for hour in range(25)]  # 0.2 cents each
    [line] = rate(hours)
    assert line.amount_cents == 5


def test_no_usage_is_no_line() -> None:
    assert rate([]) == []
    assert rate([used(0, received=5)]) == []


@pytest.mark.parametrize(
    ("counted", "metered"),
    [
        (CountedBytes.CLIENT_SENT, 10),
        (CountedBytes.CLIENT_RECEIVED, 3),
        (CountedBytes.CLIENT_BOTH, 13),
    ],
)
def test_price_says_which_bytes_count(counted: CountedBytes, metered: int) -> None:
    [line] = rate([used(10, received=3)], replace(PRICE, counted=counted))
    assert line.metered_bytes == metered


def test_hour_has_the_price_that_is_valid_when_it_begins() -> None:
    later = replace(PRICE, id=2, valid_from=START + timedelta(hours=5), price_per_gb=Decimal(1))
    first, second = rate([used(GB, hour=4), used(2 * GB, hour=5)], PRICE, later)
    assert (first.price, first.metered_bytes, first.amount_cents) == (PRICE, GB, 5)
    assert (second.price, second.metered_bytes, second.amount_cents) == (later, 2 * GB, 200)


def test_price_that_begins_later_changes_no_hour_before_it() -> None:
    hours = [used(GB, hour=hour) for hour in range(5)]
    later = replace(PRICE, id=2, valid_from=START + timedelta(hours=5), price_per_gb=Decimal(9))
    assert rate(hours, PRICE) == rate(hours, PRICE, later)


def test_usage_before_the_first_price_is_an_error() -> None:
    with pytest.raises(PriceMissingError, match="2026-03-01T00:00"):
        rate([used(1)], replace(PRICE, valid_from=START + timedelta(hours=1)))


def test_free_bytes_are_given_once_to_all_projects_together() -> None:
    free = replace(PRICE, free_bytes_per_month=3 * GB)
    lines = rate([used(2 * GB, project=1), used(2 * GB, project=2, hour=1)], free)
    assert [line.free_bytes for line in lines] == [2 * GB, GB]
    assert [line.amount_cents for line in lines] == [0, 5]


def test_free_bytes_are_those_of_the_price_at_the_start_of_the_month() -> None:
    free = replace(PRICE, free_bytes_per_month=GB)
    more = replace(
        PRICE, id=2, valid_from=START + timedelta(hours=1), free_bytes_per_month=100 * GB
    )
    lines = rate([used(GB // 2), used(GB, hour=2)], free, more)
    assert sum(line.free_bytes for line in lines) == GB


@given(hours=HOURS, prices=BOOKS, data=st.data())
def test_order_of_records_does_not_matter(
    hours: list[HourOfUsage], prices: list[Price], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(hours))
    assert rate(hours, *prices) == rate(shuffled, *prices)


@given(hours=HOURS, prices=BOOKS)
def test_free_bytes_are_used_up_before_anything_costs(
    hours: list[HourOfUsage], prices: list[Price]
) -> None:
    lines = rate(hours, *prices)
    metered = sum(line.metered_bytes for line in lines)
    free = sum(line.free_bytes for line in lines)
    assert free == min(metered, prices[0].free_bytes_per_month)


@given(hours=HOURS, prices=BOOKS, data=st.data())
def test_more_usage_makes_no_line_cheaper(
    hours: list[HourOfUsage], prices: list[Price], data: st.DataObject
) -> None:
    before = {(line.project_id, line.price.id): line.amount_cents for line in rate(hours, *prices)}
    grown = {(hour.project_id, hour.hour): hour for hour in hours}
    more = data.draw(HOURS.filter(bool))
    for hour in more:
        known = grown.get((hour.project_id, hour.hour))
        grown[hour.project_id, hour.hour] = replace(
            hour,
            client_sent_bytes=hour.client_sent_bytes + (known.client_sent_bytes if known else 0),
            client_received_bytes=hour.client_received_bytes
            + (known.client_received_bytes if known else 0),
        )
    after = {
        (line.project_id, line.price.id): line.amount_cents
        for line in rate(list(grown.values()), *prices)
    }
    for key, amount in before.items():
        assert after[key] >= amount
