"""Money: whole cents where it is owed, exact decimals where it is a price, rounded once.

Amounts are integers of the currency's hundredth part; prices are `Decimal`, EUR per GB of 10^9
bytes. Binary fractions appear nowhere in this app (a test sees to it).
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Final

CURRENCY: Final = "EUR"
BYTES_PER_GB: Final = 10**9
CENTS_PER_UNIT: Final = 100
DIGITS: Final = 60  # more than any count of bytes times any price has


def amount_cents(*, billed_bytes: int, price_per_gb: Decimal) -> int:
    """What `billed_bytes` cost, rounded half up to a whole cent.

    Args:
        billed_bytes: not negative.
        price_per_gb: EUR per 10^9 bytes, not negative.
    """
    with localcontext() as context:
        context.prec = DIGITS
        exact = price_per_gb * CENTS_PER_UNIT * billed_bytes / BYTES_PER_GB
        return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def money_format(cents: int) -> str:
    """An amount as people read it: 1234567 is "12,345.67 EUR"."""
    sign = "-" if cents < 0 else ""
    units, hundredths = divmod(abs(cents), CENTS_PER_UNIT)
    return f"{sign}{units:,}.{hundredths:02} {CURRENCY}"
