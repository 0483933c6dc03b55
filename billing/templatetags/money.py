"""Money as people read it."""

from __future__ import annotations

from decimal import Decimal

from django import template

from billing.money import CURRENCY, money_format

register = template.Library()


@register.filter
def money(cents: int) -> str:
    """An amount: 1234 is "12.34 EUR"."""
    return money_format(cents)


@register.filter
def price(price_per_gb: Decimal) -> str:
    """A price, with two digits after the point or as many as it has: "0.05 EUR"."""
    text = f"{price_per_gb:f}".rstrip("0")
    whole, _, digits = text.partition(".")
    return f"{whole}.{digits:0<2} {CURRENCY}"
