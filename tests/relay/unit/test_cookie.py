"""What a DTLS cookie is made of, and what making one costs."""

from __future__ import annotations

import tracemalloc

import pytest

from relay.transports.cookies import COOKIE_LENGTH, COOKIE_PERIOD_SECONDS, Asked, Cookies

ASKED = Asked(("192.0.2.7", 4000), b"parameters", 1000 * COOKIE_PERIOD_SECONDS)


@pytest.mark.parametrize(
    "other",
    [
        ASKED._replace(client=("192.0.2.8", 4000)),
        ASKED._replace(client=("192.0.2.7", 4001)),
        ASKED._replace(client=("192.0.2.74", 0)),
        ASKED._replace(client=("192.0.2.7", 400), parameters=b"0parameters"),
        ASKED._replace(parameters=b"Parameters"),
        ASKED._replace(now=ASKED.now + COOKIE_PERIOD_SECONDS),
    ],
)
def test_cookie_is_another_one_for_whatever_it_covers(other: Asked) -> None:
    cookies = Cookies(b"key")
    assert cookies.make(other) != cookies.make(ASKED)
    assert cookies.make(ASKED) == Cookies(b"key").make(ASKED) != Cookies(b"other").make(ASKED)
    assert len(cookies.make(ASKED)) == COOKIE_LENGTH


def test_cookie_for_a_long_hello_takes_no_more_memory_than_its_copy() -> None:
    parameters = bytes(range(256)) * 64
    cookies = Cookies(b"key")
    cookies.make(ASKED)
    tracemalloc.start()
    try:
        cookies.make(ASKED._replace(parameters=parameters))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * len(parameters)
