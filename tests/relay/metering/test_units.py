from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.addresses import address_masked, address_with_port
from relay.templatetags.units import in_bytes, in_time


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (1_234_567, "1.23 MB"),
        (12_345_678_901, "12.3 GB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (999_999, "1.00 MB"),
        (12_050_740, "12.1 MB"),
        (12_049_999, "12.0 MB"),
        (1_005_000, "1.01 MB"),
        (5 * 10**18, "5,000 PB"),
    ],
)
def test_bytes_have_three_digits_and_decimal_units(count: int, text: str) -> None:
    assert in_bytes(count) == text


@given(st.integers(0, 2**63))
def test_bytes_are_shown_within_half_of_the_last_digit(count: int) -> None:
    number, unit = in_bytes(count).replace(",", "").split(" ")
    scale = 1000 ** ("bytes", "kB", "MB", "GB", "TB", "PB").index(unit)
    assert abs(float(number) * scale - count) <= count * 0.005001


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert in_time(timedelta(seconds=seconds)) == text


def test_addresses_are_shown_whole_or_as_networks() -> None:
    assert address_with_port("192.0.2.1", 5) == "192.0.2.1:5"
    assert address_with_port("2001:db8::1", 5) == "[2001:db8::1]:5"
    assert address_masked("192.0.2.77") == "192.0.2.0/24"
    assert address_masked("2001:db8:1:2::3") == "2001:db8:1::/48"
