"""System checks of billing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.utils import timezone

# Usage older than a year is refused; beyond some years, no zone's rules are known.
DAYS_BACK: Final = 2 * 366
DAYS_AHEAD: Final = 10 * 366


@register
def billing_zone_check(**_: Any) -> list[CheckMessage]:
    """Usage is known by the hour of UTC: a month must begin on one."""
    name = settings.BILLING_TIME_ZONE
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return [
            Error(
                f"MINDMORE_BILLING_TIME_ZONE is {name!r}: set it to a name like Europe/Berlin",
                id="billing.E001",
            )
        ]
    now = timezone.now()
    days = (now + timedelta(days=number) for number in range(-DAYS_BACK, DAYS_AHEAD))
    if any(utc_offset(day, zone) % timedelta(hours=1) for day in days):
        return [
            Error(
                f"MINDMORE_BILLING_TIME_ZONE is {name!r}, which is no whole hours from UTC: "
                "usage is counted by the hour of UTC, so choose another",
                id="billing.E002",
            )
        ]
    return []


def utc_offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the clocks of `zone` are ahead of UTC at `moment`."""
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
