"""Where the relay listens, as the environment says it."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from mindmore.environment import Environment

CERTIFICATE = {
    "MINDMORE_TURN_CERTIFICATE": "/etc/turn/chain.pem",
    "MINDMORE_TURN_CERTIFICATE_KEY": "/etc/turn/key.pem",
}


def environment(**process: str) -> Environment:
    return Environment(home=Path("/nowhere"), process=process, files={})


def test_relay_listens_on_loopback_without_tls_unless_told() -> None:
    listeners = environment().listeners()
    assert listeners.turn_addresses == ("127.0.0.1",)
    assert listeners.turn_port == 3478
    assert listeners.turn_tls_port is None


def test_several_addresses_of_both_families_are_read() -> None:
    given = environment(MINDMORE_TURN_LISTEN_ADDRESS="192.0.2.1, 2001:db8::1")
    assert given.listeners().turn_addresses == ("192.0.2.1", "2001:db8::1")


def test_certificate_turns_the_tls_port_on() -> None:
    assert environment(**CERTIFICATE).listeners().turn_tls_port == 5349
    assert environment(**CERTIFICATE, MINDMORE_TURN_TLS_PORT="443").listeners().turn_tls_port == 443
    assert environment(MINDMORE_TURN_TLS_PORT="443").listeners().turn_tls_port is None


@pytest.mark.parametrize("name", CERTIFICATE)
def test_certificate_without_its_key_is_refused(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="MINDMORE_TURN_CERTIFICATE_KEY"):
        environment(**{name: CERTIFICATE[name]}).listeners()


@pytest.mark.parametrize("value", ["turn.example.com", "192.0.2.1;192.0.2.2", "192.0.2.0/24"])
def test_listen_address_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="MINDMORE_TURN_LISTEN_ADDRESS"):
        environment(MINDMORE_TURN_LISTEN_ADDRESS=value).listeners()


@pytest.mark.parametrize("value", ["balancer", "192.0.2.1/24", "192.0.2.0/33"])
def test_network_that_is_none_is_refused(value: str) -> None:
    name = "MINDMORE_TURN_PROXY_PROTOCOL_FROM"
    with pytest.raises(ImproperlyConfigured, match=name):
        environment(**{name: value}).networks(name, [])
    assert environment(**{name: "192.0.2.0/24,::1"}).networks(name, []) == ["192.0.2.0/24", "::1"]


def test_metrics_listen_on_one_address() -> None:
    name = "MINDMORE_TURN_METRICS_ADDRESS"
    assert environment().address(name, "127.0.0.1") == "127.0.0.1"
    assert environment(**{name: "2001:db8::1"}).address(name, "127.0.0.1") == "2001:db8::1"
    for wrong in ("127.0.0.1,::1", "metrics.example.org"):
        with pytest.raises(ImproperlyConfigured, match=name):
            environment(**{name: wrong}).address(name, "127.0.0.1")
