"""Months of the billing time zone: where one ends and the next begins.

A month is half open: [its first midnight, the next month's first midnight), by the clock of
`settings.BILLING_TIME_ZONE`. Where that clock changes in a month, it is an hour shorter or longer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings

MONTHS_PER_YEAR = 12
HOUR = timedelta(hours=1)

_MONTH = re.compile(r"([1-9][0-9]{3})-([0-9]{2})")


def billing_zone() -> ZoneInfo:
    """The time zone by whose clock months and days are billed and shown."""
    return ZoneInfo(settings.BILLING_TIME_ZONE)


@dataclass(frozen=True, order=True)
class Month:
    """A calendar month."""

    year: int
    number: int

    @classmethod
    def of(cls, moment: datetime) -> Month:
        """The month that holds `moment`."""
        local = moment.astimezone(billing_zone())
        return cls(local.year, local.month)

    @classmethod
    def parse(cls, text: str) -> Month | None:
        """Read "2026-03"; None where it is no month."""
        found = _MONTH.fullmatch(text)
        if found is None or not 1 <= int(found[2]) <= MONTHS_PER_YEAR:
            return None
        return cls(int(found[1]), int(found[2]))

    @property
    def first_day(self) -> date:
        """What stands for the month in the database."""
        return date(self.year, self.number, 1)

    @property
    def starts_at(self) -> datetime:
        """Its first moment."""
        return day_starts_at(self.first_day)

    @property
    def ends_at(self) -> datetime:
        """The first moment that is no longer in it."""
        return self.next().starts_at

    @property
    def hours(self) -> int:
        """How many hours it has."""
        return (self.ends_at - self.starts_at) // HOUR

    def next(self) -> Month:
        """The month after it."""
        years, number = divmod(self.number, MONTHS_PER_YEAR)
        return Month(self.year + years, number + 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"


def day_starts_at(day: date) -> datetime:
    """The first moment of a day, in UTC."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=billing_zone())
    return midnight.astimezone(UTC)
