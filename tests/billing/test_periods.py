"""Months of the billing time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from pytest_django.fixtures import Settings

from billing.checks import billing_zone_check
from billing.periods import Month, day_starts_at

MOMENTS = st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@pytest.mark.parametrize(
    ("month", "hours"),
    [
        (Month(2026, 1), 744),
        (Month(2026, 2), 672),
        (Month(2028, 2), 696),
        (Month(2026, 3), 743),
        (Month(2026, 10), 745),
        (Month(2026, 12), 744),
    ],
)
def test_month_has_exactly_its_hours_in_berlin(month: Month, hours: int) -> None:
    assert month.hours == hours


def test_month_begins_at_midnight_in_berlin() -> None:
    assert Month(2026, 7).starts_at == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert Month(2026, 7).ends_at == datetime(2026, 7, 31, 22, tzinfo=UTC)
    assert Month(2026, 12).ends_at == datetime(2026, 12, 31, 23, tzinfo=UTC)


@given(moment=MOMENTS)
def test_every_moment_is_in_exactly_one_month(moment: datetime) -> None:
    month = Month.of(moment)
    assert month.starts_at <= moment < month.ends_at
    assert Month.of(month.starts_at) == month
    assert Month.of(month.ends_at) == month.next()
    assert Month.of(month.ends_at - timedelta(microseconds=1)) == month


def test_day_begins_by_the_same_clock() -> None:
    assert day_starts_at(date(2026, 3, 29)) == datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert day_starts_at(date(2026, 3, 30)) == datetime(2026, 3, 29, 22, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "2026-1", "0000-01", "2026-01-01", "x"])
def test_what_is_no_month_is_not_read(text: str) -> None:
    assert Month.parse(text) is None
    assert Month.parse("2026-09") == Month(2026, 9)
    assert str(Month(2026, 9)) == "2026-09"


@pytest.mark.parametrize(
    ("zone", "problem"),
    [
        ("Europe/Berlin", None),
        ("UTC", None),
        ("America/New_York", None),
        ("Asia/Kolkata", "billing.E002"),
        ("Australia/Lord_Howe", "billing.E002"),  # half an hour in winter only
        ("Mars/Olympus", "billing.E001"),
        ("../etc/passwd", "billing.E001"),
    ],
)
def test_time_zone_must_be_whole_hours_from_utc(
    settings: Settings, zone: str, problem: str | None
) -> None:
    settings.BILLING_TIME_ZONE = zone
    assert [message.id for message in billing_zone_check()] == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("day", "problems"),
    [("2014-06-01", 1), ("2016-06-01", 1), ("2019-06-01", 1), ("2021-06-01", 0)],
)
def test_time_zone_must_be_whole_hours_from_utc_in_the_years_around(
    settings: Settings, day: str, problems: int
) -> None:
    settings.BILLING_TIME_ZONE = "Asia/Pyongyang"  # 8:30 from August 2015 to May 2018, else 9:00
    with time_machine.travel(f"{day} 00:00Z"):
        assert len(billing_zone_check()) == problems
