"""Classic STUN (RFC 3489) and who is told that it is not spoken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.core.classic import classic_refusal
from tests.turn_client import HEADER, MAGIC_COOKIE

transactions = st.binary(min_size=16, max_size=16).filter(lambda found: found[:4] != MAGIC_COOKIE)


@given(st.integers(0, 0x3FFF), transactions, st.binary(max_size=40))
def test_request_without_the_cookie_is_refused_with_its_transaction(
    message_type: int, transaction: bytes, body: bytes
) -> None:
    message = HEADER.pack(message_type, len(body), transaction[:4], transaction[4:]) + body
    refusal = classic_refusal(message)
    if message_type & 0x0110:
        assert refusal is None
    else:
        assert refusal is not None
        assert int.from_bytes(refusal[:2], "big") == message_type | 0x0110
        assert refusal[4:20] == transaction
        assert refusal[2:4] + refusal[20:] == b"\0\x08" + b"\0\x09\0\4\0\0\5\0"


@given(st.integers(0, 0xFFFF), st.binary(min_size=12, max_size=12), st.binary(max_size=40))
def test_message_with_the_cookie_is_left_alone(
    message_type: int, transaction: bytes, body: bytes
) -> None:
    message = HEADER.pack(message_type, len(body), MAGIC_COOKIE, transaction) + body
    assert classic_refusal(message) is None


@given(st.binary(max_size=60))
def test_what_is_no_request_of_its_own_length_is_left_alone(junk: bytes) -> None:
    whole = len(junk) >= 20 and int.from_bytes(junk[2:4], "big") == len(junk) - 20
    if not whole or junk[0] & 0xC1 or junk[1] & 0x10:
        assert classic_refusal(junk) is None
