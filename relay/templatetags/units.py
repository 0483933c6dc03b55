"""Bytes and durations as people read them."""

from __future__ import annotations

from datetime import timedelta

from django import template

register = template.Library()

STEP = 1000  # 1 GB = 10^9 bytes, as on the invoice
BYTE_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@register.filter
def in_bytes(count: int) -> str:
    """A count of bytes, rounded half up to three digits: 12050740 is "12.1 MB"."""
    count = _rounded(count)
    power, scale = 0, 1
    while count >= STEP * scale and power < len(BYTE_UNITS) - 1:
        power, scale = power + 1, scale * STEP
    whole, rest = divmod(count, scale)
    digits = 0 if power == 0 else max(0, 3 - len(str(whole)))
    fraction = f".{rest * 10**digits // scale:0{digits}}" if digits else ""
    return f"{whole:,}{fraction} {BYTE_UNITS[power]}"


def _rounded(count: int) -> int:
    """`count` with its first three digits, by whole numbers only: 999500 is 1000000."""
    step: int = 10 ** max(0, len(str(count)) - 3)
    return (count + step // 2) // step * step


@register.filter
def in_time(duration: timedelta) -> str:
    """A duration in its two largest units: "1 h 5 min", "42 s"."""
    minutes, seconds = divmod(max(0, int(duration.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number or len(parts) == 1)
