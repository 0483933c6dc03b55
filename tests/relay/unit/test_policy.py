"""The peer policy: relay.md, security statements 1 to 4."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from relay.core.addresses import host_pack
from relay.core.policy import SPECIAL_PURPOSE, PeerPolicy, PeerPolicyRules, Refusal

PUBLIC = ("8.8.8.8", "93.184.216.34", "2a01:4f8::1", "2606:2800:220:1::1")


def refusal(host: str, port: int | None = 5000, **rules: Any) -> Refusal | None:
    policy = PeerPolicy(PeerPolicyRules(**rules))
    return policy.refusal(host_pack(host), port)


@pytest.mark.parametrize("network", SPECIAL_PURPOSE)
def test_special_purpose_range_is_refused_from_its_first_to_its_last_address(network: str) -> None:
    parsed = ip_network(network)
    for address in (parsed.network_address, parsed.broadcast_address):
        assert refusal(str(address)) is Refusal.SPECIAL_PURPOSE


@pytest.mark.parametrize(
    "host",
    [
        *("9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "128.0.0.0"),
        *("172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "223.255.255.255"),
        *("2000::", "2a00::"),
    ],
)
def test_neighbours_of_special_ranges_are_peers(host: str) -> None:
    assert refusal(host) is None


@pytest.mark.parametrize("host", PUBLIC)
def test_public_address_is_a_peer(host: str) -> None:
    assert refusal(host) is None


def embedded(host: str) -> list[str]:
    number = int(ip_address(host))
    return [
        f"::ffff:{host}",
        f"::{host}",
        f"64:ff9b::{host}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
        f"::ffff:0:{host}",
        f"2a00:1450:1:2:0:5efe:{number >> 16:x}:{number & 0xFFFF:x}",
        f"2a00:1450:1:2:200:5efe:{number >> 16:x}:{number & 0xFFFF:x}",
    ]


@pytest.mark.parametrize("host", ["10.1.2.3", "127.0.0.1", "169.254.169.254", "192.168.0.1"])
def test_embedded_special_address_is_refused_in_every_form(host: str) -> None:
    for form in embedded(host):
        assert refusal(form) is Refusal.SPECIAL_PURPOSE, form


def test_embedded_denied_address_is_refused_in_every_form() -> None:
    for form in ["8.8.8.8", *embedded("8.8.8.8")]:
        assert refusal(form, denied=("8.8.8.0/24",)) in (Refusal.DENIED, Refusal.SPECIAL_PURPOSE)


def test_opened_wrapper_range_does_not_open_what_is_inside() -> None:
    rules: dict[str, Any] = {"allowed": ("64:ff9b::/96", "2002::/16")}
    assert refusal("64:ff9b::8.8.8.8", **rules) is None
    assert refusal("64:ff9b::10.0.0.1", **rules) is Refusal.SPECIAL_PURPOSE
    assert refusal("2002:a00:1::1", **rules) is Refusal.SPECIAL_PURPOSE


def test_named_range_can_be_opened_and_only_that_one() -> None:
    assert refusal("127.0.0.1", allowed=("127.0.0.0/8",)) is None
    assert refusal("10.0.0.1", allowed=("127.0.0.0/8",)) is Refusal.SPECIAL_PURPOSE


def test_denied_range_wins_over_an_opened_one() -> None:
    rules: dict[str, Any] = {"allowed": ("127.0.0.0/8",), "denied": ("127.0.0.1/32",)}
    assert refusal("127.0.0.1", **rules) is Refusal.DENIED
    assert refusal("127.0.0.2", **rules) is None


def test_own_public_address_is_a_peer_behind_a_relayed_port_only() -> None:
    rules: dict[str, Any] = {"own_addresses": ("8.8.8.8",), "relay_ports": (50000, 50099)}
    assert refusal("8.8.8.8", 50000, **rules) is None
    assert refusal("8.8.8.8", 50099, **rules) is None
    assert refusal("8.8.8.8", 49999, **rules) is Refusal.OWN_ADDRESS
    assert refusal("8.8.8.8", 50100, **rules) is Refusal.OWN_ADDRESS
    assert refusal("::ffff:8.8.8.8", 5432, **rules) is Refusal.OWN_ADDRESS


def test_own_address_is_no_peer_at_all_without_hairpin() -> None:
    rules: dict[str, Any] = {"own_addresses": ("8.8.8.8",), "hairpin": False}
    assert refusal("8.8.8.8", 50000, **rules) is Refusal.OWN_ADDRESS
    assert refusal("8.8.8.8", None, **rules) is Refusal.OWN_ADDRESS


def test_own_endpoint_is_refused_on_an_opened_network() -> None:
    rules: dict[str, Any] = {"allowed": ("127.0.0.0/8",), "own_endpoints": (("127.0.0.1", 8000),)}
    assert refusal("127.0.0.1", 8000, **rules) is Refusal.OWN_ADDRESS
    assert refusal("::ffff:127.0.0.1", 8000, allowed=("127.0.0.0/8", "::ffff:0:0/96")) is None
    assert refusal("127.0.0.1", 8001, **rules) is None


@pytest.mark.parametrize("anywhere", ["0.0.0.0", "::"])
def test_endpoint_on_every_address_is_refused_on_each_of_this_host(anywhere: str) -> None:
    rules: dict[str, Any] = {
        "allowed": ("127.0.0.0/8",),
        "own_addresses": ("8.8.8.8",),
        "own_endpoints": ((anywhere, 3478),),
        "relay_ports": (3000, 4000),
    }
    for host in ("127.0.0.1", "127.8.9.1", "8.8.8.8", "::ffff:8.8.8.8"):
        assert refusal(host, 3478, **rules) is Refusal.OWN_ADDRESS
    assert refusal("127.0.0.1", 3479, **rules) is None
    assert refusal("9.9.9.9", 3478, **rules) is None


@pytest.mark.parametrize("port", [0, 1, 22, 53, 443, 1023, 11211])
def test_port_of_a_service_is_refused(port: int) -> None:
    assert refusal("8.8.8.8", port) is Refusal.PORT


@pytest.mark.parametrize("port", [1024, 11210, 11212, 65535, None])
def test_other_port_is_not_refused(port: int | None) -> None:
    assert refusal("8.8.8.8", port) is None


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0.1/8", "intranet", "", "fe80::/129"])
@pytest.mark.parametrize("field", ["allowed", "denied"])
def test_malformed_entry_stops_the_start_and_is_named(field: str, entry: str) -> None:
    with pytest.raises(ValueError, match="peer policy"):
        refusal("8.8.8.8", 5000, **{field: (entry,)})
