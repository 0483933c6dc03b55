"""Relayed addresses of both families: RFC 8656 sections 7.2 and 8.2 (and RFC 6156, folded in)."""

from __future__ import annotations

import pytest

from relay.core.settings import TurnSettings
from tests.relay.expectations import refused
from tests.relay.fake_link import PEER, RELAYED_HOST, FakeClient, World, settings_make
from tests.turn_client import UDP_PROTOCOL, Attribute, Attributes, Message, Method

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
RELAYED_HOST6 = "2a00:1450:4001::1"
PEER6 = ("2a00:1450:4001::7", 6000)
IPV4 = b"\x01\0\0\0"
IPV6 = b"\x02\0\0\0"
DUAL = [REQUESTED, (Attribute.ADDITIONAL_ADDRESS_FAMILY, IPV6)]


def both(**changed: object) -> TurnSettings:
    return settings_make(relay_addresses=(RELAYED_HOST, RELAYED_HOST6), **changed)


def family(value: bytes) -> tuple[int, bytes]:
    return Attribute.REQUESTED_ADDRESS_FAMILY, value


def relayed(answer: Message) -> list[tuple[str, int]]:
    return answer.addresses(Attribute.XOR_RELAYED_ADDRESS)


def dual(world: World) -> tuple[FakeClient, int, int]:
    """A client with a dual allocation, and its two ports."""
    client = world.client()
    (host, port), (host6, port6) = relayed(client.request(Method.ALLOCATE, DUAL))
    assert (host, host6) == (RELAYED_HOST, RELAYED_HOST6)
    return client, port, port6


def seconds(number: int) -> tuple[int, bytes]:
    return Attribute.LIFETIME, number.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("attributes", "host"),
    [([], RELAYED_HOST), ([family(IPV4)], RELAYED_HOST), ([family(IPV6)], RELAYED_HOST6)],
)
def test_allocation_has_the_family_that_was_asked_for(attributes: Attributes, host: str) -> None:
    world = World(both())
    answer = world.client().request(Method.ALLOCATE, [REQUESTED, *attributes])
    assert [address[0] for address in relayed(answer)] == [host]


@pytest.mark.parametrize(
    ("configured", "attributes"),
    [
        ((RELAYED_HOST,), [family(IPV6)]),
        ((RELAYED_HOST6,), [family(IPV4)]),
        ((RELAYED_HOST6,), []),
        ((RELAYED_HOST, RELAYED_HOST6), [family(b"\x03\0\0\0")]),
    ],
)
def test_family_that_is_not_configured_is_440(
    configured: tuple[str, ...], attributes: Attributes
) -> None:
    world = World(settings_make(relay_addresses=configured))
    with refused(440):
        world.client().request(Method.ALLOCATE, [REQUESTED, *attributes])
    assert world.turn.table.ports.taken_count == 0


@pytest.mark.parametrize(
    "attributes",
    [
        [(Attribute.ADDITIONAL_ADDRESS_FAMILY, IPV4)],
        [(Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\x02")],
        [(Attribute.ADDITIONAL_ADDRESS_FAMILY, IPV6), family(IPV4)],
        [(Attribute.ADDITIONAL_ADDRESS_FAMILY, IPV6), (Attribute.RESERVATION_TOKEN, bytes(8))],
        [(Attribute.ADDITIONAL_ADDRESS_FAMILY, IPV6), (Attribute.EVEN_PORT, b"\x80")],
    ],
)
def test_additional_family_excludes_what_the_rfc_says(attributes: Attributes) -> None:
    world = World(both())
    with refused(400):
        world.client().request(Method.ALLOCATE, [REQUESTED, *attributes])
    assert world.turn.table.ports.taken_count == 0


def test_dual_allocation_relays_on_both_addresses_and_counts_as_one() -> None:
    world = World(both())
    client, port, port6 = dual(world)
    client.permit(PEER, PEER6)
    client.send(PEER, b"four")
    client.send(PEER6, b"six")
    assert world.to_peers == [(port, PEER, b"four"), (port6, PEER6, b"six")]
    world.from_peer(port6, PEER6, b"in")
    assert client.receive() == (PEER6, b"in")
    client.bind(0x4000, PEER6)
    world.from_peer(port6, PEER6, b"in")
    assert client.receive() == (0x4000, b"in")
    assert len(world.started) == 1


def test_dual_allocation_is_understood_as_older_clients_ask_for_it() -> None:
    answer = World(both()).client().request(Method.ALLOCATE, [REQUESTED, (0x8032, IPV6)])
    assert [host for host, _ in relayed(answer)] == [RELAYED_HOST, RELAYED_HOST6]


def test_dual_allocation_with_an_even_port_has_two_of_them() -> None:
    world = World(both())
    answer = world.client().request(Method.ALLOCATE, [*DUAL, (Attribute.EVEN_PORT, b"\0")])
    assert [port % 2 for _, port in relayed(answer)] == [0, 0]


def test_half_that_is_not_configured_is_named_with_440() -> None:
    world = World()
    answer = world.client().request(Method.ALLOCATE, DUAL)
    assert [host for host, _ in relayed(answer)] == [RELAYED_HOST]
    assert answer.attributes[Attribute.ADDRESS_ERROR_CODE] == bytes((2, 0, 4, 40))


def test_half_that_cannot_be_opened_is_named_with_508() -> None:
    world = World(both(relay_ports=(50000, 50000)))
    first = world.client(("192.0.2.7", 40001))
    first.request(Method.ALLOCATE, [REQUESTED, family(IPV4)])
    answer = world.client().request(Method.ALLOCATE, DUAL)
    assert [host for host, _ in relayed(answer)] == [RELAYED_HOST6]
    assert answer.attributes[Attribute.ADDRESS_ERROR_CODE] == bytes((1, 0, 5, 8))
    with refused(508):
        world.client(("192.0.2.7", 40002)).request(Method.ALLOCATE, DUAL)


def test_ports_that_something_else_has_fail_both_halves_with_508() -> None:
    world = World(both(relay_ports=(50000, 50001)))
    world.ports_elsewhere = {50000, 50001}
    with refused(508):
        world.client().request(Method.ALLOCATE, DUAL)
    assert world.turn.table.ports.taken_count == 0


def test_one_half_is_refreshed_and_the_other_one_ends() -> None:
    world = World(both())
    client, port, port6 = dual(world)
    client.permit(PEER, PEER6)
    client.bind(0x4000, PEER6)
    world.pass_seconds(500)
    client.request(Method.REFRESH, [seconds(600), family(IPV4)])
    client.permit(PEER)
    world.pass_seconds(101)
    assert list(world.open_ports) == [port]
    client.send(PEER, b"lives")
    client.send(PEER6, b"gone")
    client.send_channel(0x4000, b"gone")
    assert world.to_peers == [(port, PEER, b"lives")]
    with refused(443):
        client.request(Method.REFRESH, [seconds(600), family(IPV6)])
    world.pass_seconds(600)
    assert world.open_ports == {}
    assert world.turn.table.ports.taken_count == 0
    assert len(world.ended) == 1
    assert port6 not in world.open_ports


def test_half_is_deleted_alone_and_the_rest_by_a_refresh_without_family() -> None:
    world = World(both())
    client, port, _ = dual(world)
    client.permit(PEER, PEER6)
    client.request(Method.REFRESH, [seconds(0), family(IPV6)])
    assert list(world.open_ports) == [port]
    with refused(443):
        client.permit(PEER6)
    client.send(PEER, b"lives")
    assert len(world.to_peers) == 1
    client.refresh(0)
    assert world.turn.table.ports.taken_count == 0


def test_peer_of_the_other_family_is_443_in_requests_and_dropped_in_send() -> None:
    world = World(both())
    client = world.client()
    client.allocate()
    with refused(443):
        client.permit(PEER6)
    with refused(443):
        client.bind(0x4000, PEER6)
    client.send(PEER6, b"x")
    assert world.to_peers == []


@pytest.mark.parametrize("addresses", [(), ("192.0.2.1", "192.0.2.2"), ("::1", "::2")])
def test_two_relay_addresses_of_one_family_stop_the_start(addresses: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="relay addresses"):
        World(settings_make(relay_addresses=addresses))
