"""Time-limited credentials and stateless nonces."""

from __future__ import annotations

import pytest

from relay.core.credentials import (
    USERNAME_LENGTH_MAX,
    TurnUsername,
    password_derive,
    username_format,
    username_parse,
)
from relay.core.nonce import (
    FEATURE_PASSWORD_ALGORITHMS,
    FEATURE_USERNAME_ANONYMITY,
    nonce_is_fresh,
    nonce_made_at,
    nonce_make,
    nonce_offers_algorithms,
)

CLIENT = ("192.0.2.7", 40000)
NOW = 1_800_000_000.0


def test_password_is_what_other_implementations_derive() -> None:
    # printf %s 1433895918:user | openssl dgst -sha1 -hmac north -binary | base64
    assert password_derive(b"north", "1433895918:user") == "/gk4t5tUc08OpM3NjrVjHSFVNmY="


def test_username_is_read_as_it_was_written() -> None:
    for label in ("", "room 7", "a/b:c", "Zoë"):
        username = username_format(expires_at=17, project="prj_a", credential="crd_b", label=label)
        assert username_parse(username) == TurnUsername(17, "prj_a", "crd_b", label)


@pytest.mark.parametrize(
    "username",
    [
        *("", ":", "17", "17:", "17:prj_a", "17:/crd_b", "17:prj_a/", "-1:prj_a/crd_b"),
        *("1e9:prj_a/crd_b", " 17:prj_a/crd_b", "\u0661\u0667:prj_a/crd_b"),
        "9" * 13 + ":prj_a/crd_b",
    ],
)
def test_username_of_another_form_is_nobody(username: str) -> None:
    assert username_parse(username) is None


def test_username_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="508"):
        username_format(expires_at=17, project="p", credential="c", label="x" * USERNAME_LENGTH_MAX)


@pytest.mark.parametrize("features", [None, 0, FEATURE_PASSWORD_ALGORITHMS, 0xFFFFFF])
def test_nonce_is_good_for_its_client_and_its_time_only(features: int | None) -> None:
    nonce = nonce_make(b"key", CLIENT, NOW, features)
    assert len(nonce) == (11 if features is None else 24)
    assert nonce_offers_algorithms(nonce) == (features is not None)
    made_at = nonce_made_at([b"key"], CLIENT, nonce, NOW)
    assert made_at is not None
    assert nonce_made_at([b"key"], ("192.0.2.7", 40001), nonce, NOW) is None
    assert nonce_made_at([b"key"], ("192.0.2.8", 40000), nonce, NOW) is None
    assert nonce_is_fresh(made_at, NOW + 3600, 3600)
    assert not nonce_is_fresh(made_at, NOW + 3601, 3600)
    ahead = nonce_make(b"key", CLIENT, NOW + 128, features)
    assert nonce_made_at([b"key"], CLIENT, ahead, NOW) is None


def test_nonce_whose_16_bits_of_time_have_come_round_is_not_ours() -> None:
    nonce = nonce_make(b"key", CLIENT, NOW, FEATURE_PASSWORD_ALGORITHMS)
    round_seconds = 64 << 16
    assert nonce_made_at([b"key"], CLIENT, nonce, NOW + round_seconds - 64) is not None
    for later in (round_seconds, round_seconds + 600, 2 * round_seconds):
        assert nonce_made_at([b"key"], CLIENT, nonce, NOW + later) is None


def test_nonce_is_another_one_for_every_client_time_and_key() -> None:
    nonces = [
        nonce_make(key, client, now, FEATURE_PASSWORD_ALGORITHMS)[-8:]  # the MAC alone
        for key in (b"key", b"another key")
        for client in (CLIENT, ("192.0.2.7", 40001), ("192.0.2.8", 40000))
        for now in (NOW, NOW + 64, NOW + 3600)
    ]
    assert len(set(nonces)) == len(nonces)


def test_nonce_carries_the_features_in_their_registered_bits() -> None:
    nonce = nonce_make(b"key", CLIENT, NOW, FEATURE_PASSWORD_ALGORITHMS)
    assert nonce.startswith(b"obMatJos2AAAB")
    both = nonce_make(b"key", CLIENT, NOW, FEATURE_PASSWORD_ALGORITHMS | FEATURE_USERNAME_ANONYMITY)
    assert both.startswith(b"obMatJos2AAAD")


def test_nonce_without_its_cookie_or_with_other_features_is_not_ours() -> None:
    nonce = nonce_make(b"key", CLIENT, NOW, FEATURE_PASSWORD_ALGORITHMS)
    assert nonce_made_at([b"key"], CLIENT, nonce[13:], NOW) is None
    assert nonce_made_at([b"key"], CLIENT, b"obMatJos2AAAA" + nonce[13:], NOW) is None


def test_nonce_of_the_old_key_is_accepted_while_keys_rotate() -> None:
    nonce = nonce_make(b"old", CLIENT, NOW, 1)
    assert nonce_made_at([b"new", b"old"], CLIENT, nonce, NOW) is not None
    assert nonce_made_at([b"new"], CLIENT, nonce, NOW) is None


@pytest.mark.parametrize("nonce", [b"", b"x", b"=" * 11, b"\xff" * 24, b"a" * 4096])
def test_junk_is_no_nonce(nonce: bytes) -> None:
    assert nonce_made_at([b"key"], CLIENT, nonce, NOW) is None
