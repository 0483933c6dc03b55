"""Rating: usage by the hour and the price book in, lines out. No database, no clock.

    hours of the month, in their order
      -> bytes, counted by the rule of the price that is valid at that hour
      -> less what is free
      -> times that price: one line per project and price, rounded once

An hour is rated by the price that is valid when it begins. The free bytes are those of the price
that is valid when the month begins; they belong to the organisation, not to a project, and the
earliest hours use them up (within an hour, projects in the order of their numbers). So they are
given once, however the usage came in; and more usage takes free bytes from later hours only, so
that no line, and no sum of them, ever gets smaller by it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from billing.money import amount_cents


class CountedBytes(StrEnum):
    """Which bytes a price counts; the words stand on the invoice."""

    CLIENT_SENT = "client_sent"
    CLIENT_RECEIVED = "client_received"
    CLIENT_BOTH = "client_both"

    @property
    def words(self) -> str:
        """As the invoice says it."""
        return _WORDS[self]


_WORDS = {
    CountedBytes.CLIENT_SENT: "bytes sent to the TURN client",
    CountedBytes.CLIENT_RECEIVED: "bytes received from the TURN client",
    CountedBytes.CLIENT_BOTH: "bytes sent to and received from the TURN client",
}


class PriceMissingError(Exception):
    """Usage of a time for which the price book has no price."""


@dataclass(frozen=True, slots=True)
class Price:
    """One version of the price book, valid from `valid_from` until the next begins."""

    id: int
    valid_from: datetime
    price_per_gb: Decimal
    free_bytes_per_month: int
    counted: CountedBytes


@dataclass(frozen=True, slots=True)
class HourOfUsage:
    """What one project relayed in one hour."""

    project_id: int
    hour: datetime
    client_sent_bytes: int
    client_received_bytes: int


@dataclass(frozen=True, slots=True)
class RatedLine:
    """What one project owes at one price.

    Attributes:
        metered_bytes: counted by the price's rule.
        free_bytes: how many of them cost nothing.
        amount_cents: for the others.
    """

    project_id: int
    price: Price
    metered_bytes: int
    free_bytes: int
    amount_cents: int


def usage_rate(
    *, hours: Iterable[HourOfUsage], prices: Sequence[Price], starts_at: datetime
) -> list[RatedLine]:
    """Rate an organisation's usage of one month.

    Args:
        hours: of all its projects, in any order, each project and hour once.
        prices: the price book, in the order of `valid_from`.
        starts_at: when the month begins.

    Returns:
        A line per project and price, in that order; none where nothing was counted.

    Raises:
        PriceMissingError: an hour lies before the first price.
    """
    free_left = _free_bytes(prices, starts_at)
    metered: dict[tuple[int, Price], int] = {}
    free: dict[tuple[int, Price], int] = {}
    for hour in sorted(hours, key=lambda hour: (hour.hour, hour.project_id)):
        price = _price_at(prices, hour.hour)
        counted = _counted_bytes(hour, price.counted)
        free_now = min(free_left, counted)
        free_left -= free_now
        key = (hour.project_id, price)
        metered[key] = metered.get(key, 0) + counted
        free[key] = free.get(key, 0) + free_now
    return [
        RatedLine(
            project_id=project_id,
            price=price,
            metered_bytes=counted,
            free_bytes=free[project_id, price],
            amount_cents=amount_cents(
                billed_bytes=counted - free[project_id, price], price_per_gb=price.price_per_gb
            ),
        )
        for (project_id, price), counted in sorted(
            metered.items(), key=lambda item: (item[0][0], item[0][1].valid_from)
        )
        if counted
    ]


def _price_at(prices: Sequence[Price], moment: datetime) -> Price:
    index = bisect_right(prices, moment, key=lambda price: price.valid_from)
    if not index:
        raise PriceMissingError(f"no price is valid at {moment.isoformat()}")
    return prices[index - 1]


def _free_bytes(prices: Sequence[Price], starts_at: datetime) -> int:
    try:
        return _price_at(prices, starts_at).free_bytes_per_month
    except PriceMissingError:  # the book begins within this month
        return prices[0].free_bytes_per_month if prices else 0


def _counted_bytes(hour: HourOfUsage, counted: CountedBytes) -> int:
    match counted:
        case CountedBytes.CLIENT_SENT:
            return hour.client_sent_bytes
        case CountedBytes.CLIENT_RECEIVED:
            return hour.client_received_bytes
        case CountedBytes.CLIENT_BOTH:
            return hour.client_sent_bytes + hour.client_received_bytes
