"""What relayed data costs, by version."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from billing.money import CURRENCY
from billing.rating import CountedBytes


class PriceBookVersion(models.Model):
    """The prices from `valid_from` until the next version's; never changed, never deleted.

    The database refuses both. `valid_from` is a full hour, as usage is known by the hour.
    """

    valid_from = models.DateTimeField(unique=True)
    currency = models.CharField(max_length=3, default=CURRENCY, editable=False)
    price_per_gb = models.DecimalField("price per GB (10^9 bytes)", max_digits=12, decimal_places=6)
    free_bytes_per_month = models.PositiveBigIntegerField(default=0)
    counted_bytes = models.CharField(
        max_length=16,
        choices=[(counted.value, counted.words) for counted in CountedBytes],
        default=CountedBytes.CLIENT_SENT,
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["valid_from"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=models.Q(price_per_gb__gte=0), name="price_is_not_negative"
            )
        ]

    def __str__(self) -> str:
        return f"{self.price_per_gb} {self.currency} per GB from {self.valid_from:%Y-%m-%d %H:%M}Z"
