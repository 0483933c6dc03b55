"""Production does not start where people could not reach it safely."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from mindmore.checks import site_url_check, turn_host_check


@pytest.fixture
def production(settings: Settings) -> Settings:
    settings.PRODUCTION = True
    settings.SITE_URL = "https://turn.example.org"
    settings.SECURE = True
    settings.TURN_HOST = "turn.example.org"
    return settings


def test_public_addresses_are_fine(production: Settings) -> None:
    assert [*site_url_check(), *turn_host_check()] == []


def test_development_may_stay_on_this_machine() -> None:
    assert [*site_url_check(), *turn_host_check()] == []


def test_site_without_https_is_an_error(production: Settings) -> None:
    production.SITE_URL, production.SECURE = "http://turn.example.org", False
    [error] = site_url_check()
    assert error.id == "mindmore.E001"
    assert "set it to the https:// address" in error.msg


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]", "0.0.0.0"])
def test_relay_that_clients_seek_on_their_own_machine_is_an_error(
    production: Settings, host: str
) -> None:
    production.TURN_HOST = host
    [error] = turn_host_check()
    assert error.id == "mindmore.E002"
    assert "set it to this machine's public name" in error.msg
