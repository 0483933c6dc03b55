"""Minting access tokens (RFC 7635): what is minted is what the relay takes."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime

import pytest
from pytest_django import Settings

from accounts.services import project_create
from relay.core.access_tokens import ThirdParty, TokenKey
from relay.sealing import gcm_open
from relay.services.access_tokens import NoTokenKeyError, access_token_mint
from relay.services.credentials import CredentialLimitError
from tests.relay.api.client import Customer
from tests.relay.fake_link import START, World, settings_make
from tests.relay.tokens import TokenClient

NOW = datetime.fromtimestamp(START, UTC)


@pytest.fixture
def world(customer: Customer, settings: Settings) -> World:
    """A relay that takes the tokens of the customer's project."""
    public_id = customer.project.public_id
    settings.TURN_OAUTH_KEYS = [
        ("others", "prj_others", b"o" * 32),
        ("new", public_id, b"n" * 32),
        ("old", public_id, b"p" * 32),
    ]
    settings.TURN_OAUTH_SERVER_NAME = "turn.example.org"
    keys = tuple(TokenKey(*key) for key in settings.TURN_OAUTH_KEYS)
    return World(settings_make(third_party=ThirdParty("turn.example.org", keys, gcm_open)))


@pytest.mark.parametrize("length", [20, 32])
def test_minted_token_relays_for_its_project(customer: Customer, world: World, length: int) -> None:
    project = customer.project
    minted = access_token_mint(project=project, ttl_seconds=600, mac_key_length=length, now=NOW)
    assert (minted.kid, minted.server_name) == ("new", "turn.example.org")
    assert (minted.ttl_seconds, minted.expires_at) == (600, int(START) + 600)
    client = TokenClient(
        world,
        b64decode(minted.access_token),
        kid=minted.kid,
        mac_key=b64decode(minted.mac_key),
    )
    client.sha256 = length == 32
    client.allocate()
    assert [(found.owner, found.credential) for found in world.started] == [
        (project.public_id, minted.id)
    ]


def test_minted_token_lasts_as_long_as_its_client_is_told(customer: Customer, world: World) -> None:
    minted = access_token_mint(project=customer.project, ttl_seconds=600, now=NOW)
    third_party = world.turn.settings.third_party
    assert third_party is not None
    key = third_party.key(minted.kid)
    assert key is not None
    token = third_party.open(key.key, b64decode(minted.access_token, validate=True))
    assert token is not None
    assert token.lifetime_seconds == minted.ttl_seconds == 600
    assert token.issued_at + token.lifetime_seconds == minted.expires_at


def test_no_two_tokens_are_alike(customer: Customer, world: World) -> None:
    minted = [access_token_mint(project=customer.project, now=NOW) for _ in range(50)]
    assert len({token.access_token for token in minted}) == 50
    assert len({token.mac_key for token in minted}) == 50


def test_project_without_a_key_gets_no_token(customer: Customer, world: World) -> None:
    other = project_create(organisation=customer.project.organisation, name="other")
    with pytest.raises(NoTokenKeyError, match=other.public_id):
        access_token_mint(project=other, now=NOW)


@pytest.mark.parametrize("ttl_seconds", [0, 59, 31 * 24 * 3600])
def test_lifetime_has_the_limits_of_credentials(
    customer: Customer, world: World, ttl_seconds: int
) -> None:
    with pytest.raises(CredentialLimitError):
        access_token_mint(project=customer.project, ttl_seconds=ttl_seconds, now=NOW)
