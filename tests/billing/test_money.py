"""Money: exact until it is rounded, and rounded once."""

from __future__ import annotations

import ast
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import amount_cents, money_format

BILLING = Path(__file__).parents[2] / "billing"
BYTES = st.integers(min_value=0, max_value=2**63)
PRICES = st.decimals(min_value=0, max_value=1000, places=6)


def test_no_binary_fraction_in_billing() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in BILLING.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.Attribute) and node.attr in ("FloatField", "timestamp"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("billed_bytes", "cents"),
    [
        (0, 0),
        (99_999_999, 0),
        (100_000_000, 1),  # exactly half a cent goes up
        (299_999_999, 1),
        (300_000_000, 2),
        (10**9, 5),
        (10**12, 5000),
    ],
)
def test_amount_is_rounded_half_up_to_a_cent(billed_bytes: int, cents: int) -> None:
    assert amount_cents(billed_bytes=billed_bytes, price_per_gb=Decimal("0.05")) == cents


@given(billed_bytes=BYTES, price=PRICES)
def test_amount_is_the_exact_product_to_half_a_cent(billed_bytes: int, price: Decimal) -> None:
    exact = Fraction(price) * 100 * billed_bytes / 10**9
    assert amount_cents(billed_bytes=billed_bytes, price_per_gb=price) == int(
        exact + Fraction(1, 2)
    )


@given(billed_bytes=BYTES, more=BYTES, price=PRICES)
def test_more_bytes_never_cost_less(billed_bytes: int, more: int, price: Decimal) -> None:
    less = amount_cents(billed_bytes=billed_bytes, price_per_gb=price)
    assert amount_cents(billed_bytes=billed_bytes + more, price_per_gb=price) >= less


@pytest.mark.parametrize(
    ("cents", "text"),
    [(0, "0.00 EUR"), (5, "0.05 EUR"), (1234567, "12,345.67 EUR"), (-5, "-0.05 EUR")],
)
def test_amounts_read_like_money(cents: int, text: str) -> None:
    assert money_format(cents) == text
