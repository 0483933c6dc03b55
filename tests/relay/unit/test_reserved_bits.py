"""Bits that RFC 8656 section 18 reserves, and classes that section 17 gives no meaning."""

from __future__ import annotations

import pytest

from tests.relay.fake_link import PEER, RELAYED_HOST, World, settings_make
from tests.relay.unit.test_families import RELAYED_HOST6
from tests.turn_client import (
    PAIR,
    UDP_PROTOCOL,
    Attribute,
    Attributes,
    Kind,
    Method,
    address_encode,
    message_encode,
)

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
CHANNEL = 0x4000


@pytest.mark.parametrize(
    ("attributes", "hosts"),
    [
        ([(Attribute.REQUESTED_TRANSPORT, b"\x11\xff\xff\xff")], [RELAYED_HOST]),
        (
            [REQUESTED, (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x02\xff\xff\xff")],
            [RELAYED_HOST6],
        ),
        (
            [REQUESTED, (Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\x02\xff\xff\xff")],
            [RELAYED_HOST, RELAYED_HOST6],
        ),
    ],
)
def test_reserved_bits_of_an_allocate_are_ignored(attributes: Attributes, hosts: list[str]) -> None:
    world = World(settings_make(relay_addresses=(RELAYED_HOST, RELAYED_HOST6)))
    answer = world.client().request(Method.ALLOCATE, attributes)
    assert [host for host, _ in answer.addresses(Attribute.XOR_RELAYED_ADDRESS)] == hosts


@pytest.mark.parametrize(("flags", "reserved"), [(0x00, 0), (0x7F, 0), (0x80, 1), (0xFF, 1)])
def test_only_the_first_bit_of_even_port_reserves(flags: int, reserved: int) -> None:
    world = World()
    attributes = [REQUESTED, (Attribute.EVEN_PORT, bytes((flags,)))]
    answer = world.client().request(Method.ALLOCATE, attributes)
    assert answer.address(Attribute.XOR_RELAYED_ADDRESS)[1] % 2 == 0
    assert (Attribute.RESERVATION_TOKEN in answer.attributes) == bool(reserved)
    assert world.turn.table.ports.taken_count == 1 + reserved


def test_reserved_bits_of_channel_number_and_peer_are_ignored() -> None:
    world = World()
    client = world.client()
    port = client.port()
    address = b"\xff" + address_encode(PEER)[1:]
    number = (Attribute.CHANNEL_NUMBER, PAIR.pack(CHANNEL, 0xFFFF))
    client.request(Method.CHANNEL_BIND, [number, (Attribute.XOR_PEER_ADDRESS, address)])
    client.send_channel(CHANNEL, b"out")
    assert world.to_peers == [(port, PEER, b"out")]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *((method, Kind.INDICATION) for method in (Method.ALLOCATE, Method.REFRESH)),
        *((method, Kind.INDICATION) for method in (Method.CREATE_PERMISSION, Method.CHANNEL_BIND)),
        *((Method.SEND, kind) for kind in (Kind.REQUEST, Kind.SUCCESS, Kind.ERROR)),
        *((Method.DATA, kind) for kind in Kind),
        *((Method.REFRESH, kind) for kind in (Kind.SUCCESS, Kind.ERROR)),
    ],
)
def test_method_of_a_class_that_it_has_not_is_dropped(method: Method, kind: Kind) -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    allocation = world.started[0]
    before = dict(allocation.permissions), dict(allocation.channels), allocation.expires_at
    world.pass_seconds(1)
    attributes: Attributes = [
        REQUESTED,
        (Attribute.LIFETIME, bytes(4)),
        (Attribute.CHANNEL_NUMBER, PAIR.pack(CHANNEL, 0)),
        (Attribute.XOR_PEER_ADDRESS, PEER),
        (Attribute.DATA, b"x"),
        *client.credential_attributes(),
    ]
    client.transmit(message_encode(method, kind, attributes, key=client.key))
    assert not client.arrived
    assert world.to_peers == []
    assert (allocation.permissions, allocation.channels, allocation.expires_at) == before
    assert len(world.started) == 1
    assert world.ended == []
