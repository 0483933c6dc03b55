"""Access tokens: what is sealed, and what of it can be opened (RFC 7635 section 6.2)."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.access_tokens import (
    KEY_LENGTHS,
    AccessToken,
    ThirdParty,
    token_credential,
    token_seal,
)
from relay.sealing import gcm_open, gcm_seal
from tests.relay.fake_link import START
from tests.relay.tokens import KEY, SERVER_NAME, token_make

TOKENS = st.builds(
    AccessToken,
    st.binary(min_size=20, max_size=64),
    st.integers(0, 2**47).map(float),
    st.integers(0, 2**32 - 1),
)
KEYS = st.sampled_from(KEY_LENGTHS).flatmap(
    lambda length: st.binary(min_size=length, max_size=length)
)


def token_open(key: bytes, server_name: str, value: bytes) -> AccessToken | None:
    return ThirdParty(server_name, (), gcm_open).open(key, value)


def test_token_has_the_bytes_of_the_rfc() -> None:
    key, nonce = bytes(range(32)), b"nonce1234567"
    value = token_seal(gcm_seal, key, "turn", AccessToken(b"k" * 20, 1_800_000_000.5, 3600), nonce)
    assert value[:14] == b"\x00\x0c" + nonce
    assert len(value) == 2 + 12 + (2 + 20 + 8 + 4) + 16
    assert token_open(key, "turn", value) == AccessToken(b"k" * 20, 1_800_000_000.5, 3600)


@given(KEYS, st.text(max_size=64), TOKENS, st.binary(min_size=12, max_size=12))
def test_what_is_sealed_can_be_opened(
    key: bytes, server_name: str, token: AccessToken, nonce: bytes
) -> None:
    assert (
        token_open(key, server_name, token_seal(gcm_seal, key, server_name, token, nonce)) == token
    )


@given(KEYS, st.binary(max_size=200))
def test_junk_is_no_token(key: bytes, value: bytes) -> None:
    assert token_open(key, SERVER_NAME, value) is None
    assert token_open(key, SERVER_NAME, b"\x00\x0c" + value) is None


@given(st.binary(max_size=100))
def test_junk_under_the_right_key_is_a_token_or_none(content: bytes) -> None:
    sealed = gcm_seal(KEY.key, b"n" * 12, content, SERVER_NAME.encode())
    token = token_open(KEY.key, SERVER_NAME, b"\x00\x0c" + b"n" * 12 + sealed)
    assert token is None or len(content) == 14 + len(token.mac_key)


@given(st.data())
def test_whatever_is_changed_in_a_token_makes_it_none(data: st.DataObject) -> None:
    value = bytearray(token_make(START))
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= data.draw(st.integers(1, 255))
    assert token_open(KEY.key, SERVER_NAME, bytes(value)) is None
    cut = data.draw(st.integers(0, len(value) - 1))
    assert token_open(KEY.key, SERVER_NAME, token_make(START)[:cut]) is None


def test_token_of_another_server_or_key_cannot_be_opened() -> None:
    value = token_make(START)
    assert token_open(KEY.key, SERVER_NAME, value) is not None
    assert token_open(KEY.key, "turn.example.com", value) is None
    assert token_open(os.urandom(32), SERVER_NAME, value) is None


@pytest.mark.parametrize("length", [0, 19, 65])
def test_mac_key_too_short_or_too_long_is_no_token(length: int) -> None:
    assert token_open(KEY.key, SERVER_NAME, token_make(START, mac_key=b"k" * length)) is None


@pytest.mark.parametrize(
    ("offset", "live"),
    [(0, True), (3604.9, True), (3605, False), (-3604.9, True), (-3605, False)],
)
def test_token_is_live_within_its_lifetime_and_five_seconds(offset: float, live: bool) -> None:
    assert AccessToken(b"", START, 3600).is_live(START + offset) is live


@pytest.mark.parametrize(
    ("offset", "left"), [(0, 3600), (3, 3600), (5, 3600), (6, 3599), (-65, 3540)]
)
def test_no_lifetime_beyond_the_tokens(offset: float, left: float) -> None:
    assert AccessToken(b"", START, 3600).seconds_left(START + offset) == left


def test_credential_of_a_token_is_its_own() -> None:
    first, second = token_make(START), token_make(START)
    assert token_credential(first) == token_credential(first) != token_credential(second)
    assert len(token_credential(first)) == len("crd_") + 16
