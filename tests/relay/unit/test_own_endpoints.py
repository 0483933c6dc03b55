"""Where the service itself listens: by address, by name, and where nobody knows the name."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as settings_of_django

from relay.core.addresses import host_pack
from relay.core.policy import PeerPolicy, PeerPolicyRules, Refusal
from relay.management.commands.runrelay import own_endpoints
from relay.own_endpoints import HostNames

NAME = "db.example.org"


class Names:
    """Stands in for the resolver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] = []
        self.error: Exception | None = None
        monkeypatch.setattr(socket, "getaddrinfo", self.answer)

    def answer(self, host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        assert host == NAME
        if self.error is not None:
            raise self.error
        return [(0, 0, 0, "", (address, 0)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def found(known: HostNames, host: str) -> list[str]:
    return [address for address, _ in known.endpoints([("database", host, 5432)])]


def test_name_stands_for_its_addresses_of_both_families_in_one_order(names: Names) -> None:
    names.addresses = ["9.9.9.9", "2620:fe::9", "9.9.9.9", "fe80::1%lo"]
    endpoints = HostNames().endpoints([("database", NAME, 5432)])
    assert endpoints == (("2620:fe::9", 5432), ("9.9.9.9", 5432), ("fe80::1", 5432))
    names.addresses.reverse()
    assert HostNames().endpoints([("database", NAME, 5432)]) == endpoints


@pytest.mark.parametrize("host", ["localhost", "LocalHost."])
def test_localhost_is_the_loopback_address_of_both_families(host: str) -> None:
    assert found(HostNames(), host) == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("host", ["", "/run/postgresql", "@valkey"])
def test_path_of_a_socket_is_no_address(host: str) -> None:
    assert found(HostNames(), host) == []


@pytest.mark.parametrize("error", [socket.gaierror(-3, "for now"), UnicodeError("label too long")])
def test_unknown_name_is_said_and_what_it_stood_for_last_holds(
    names: Names, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    known = HostNames()
    names.error = error
    assert found(known, NAME) == []
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["service"]) == ("own_name_unknown", "database")
    assert NAME not in str(line)
    names.addresses, names.error = ["9.9.9.9"], None
    assert found(known, NAME) == ["9.9.9.9"]
    names.error = error
    assert found(known, NAME) == ["9.9.9.9"]
    names.addresses, names.error = ["9.9.9.8"], None
    assert found(known, NAME) == ["9.9.9.8"]


def settings_with(**changed: Any) -> SimpleNamespace:
    names = [name for name in dir(settings_of_django) if name.isupper()]
    return SimpleNamespace(**{n: getattr(settings_of_django, n) for n in names} | changed)


def test_database_and_valkey_by_name_are_no_peers_of_anybody(names: Names) -> None:
    names.addresses = ["9.9.9.9"]
    settings = settings_with(
        DATABASES={"default": {"HOST": NAME, "PORT": "6432"}}, REDIS_URL="redis://localhost:7000/0"
    )
    rules = PeerPolicyRules(allowed=("::1/128",), own_endpoints=own_endpoints(settings))
    policy = PeerPolicy(rules)
    for host, port in (("9.9.9.9", 6432), ("::1", 7000)):
        assert policy.refusal(host_pack(host), port) is Refusal.OWN_ADDRESS
        assert policy.refusal(host_pack(host), port + 1) is None
