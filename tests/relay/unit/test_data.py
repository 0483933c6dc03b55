"""Permissions, indications, channels and counters: RFC 8656 sections 9 to 12."""

from __future__ import annotations

import pytest

from tests.relay.expectations import refused
from tests.relay.fake_link import (
    PEER,
    World,
    settings_make,
)
from tests.turn_client import (
    PAIR,
    Attribute,
    Attributes,
    Kind,
    Method,
    address_encode,
    channeldata_encode,
    message_decode,
    message_encode,
)

CHANNEL = 0x4000


# --- Permissions, Send and Data -------------------------------------------------------------------


def test_permission_ends_exactly_at_its_deadline_in_both_directions() -> None:
    world = World()
    client = world.client()
    port = client.port()
    client.permit(PEER)
    world.pass_seconds(299.9)
    client.send(PEER, b"out")
    world.from_peer(port, PEER, b"in")
    assert world.to_peers == [(port, PEER, b"out")]
    assert client.receive() == (PEER, b"in")
    world.pass_seconds(0.1)
    client.send(PEER, b"out")
    world.from_peer(port, PEER, b"in")
    assert len(world.to_peers) == 1
    assert not client.arrived


def test_permission_is_for_an_address_whatever_the_port() -> None:
    world = World()
    client = world.client()
    port = client.port()
    client.permit((PEER[0], 1))
    world.from_peer(port, (PEER[0], 7777), b"in")
    assert client.receive() == ((PEER[0], 7777), b"in")
    world.from_peer(port, ("8.8.4.4", 7777), b"in")
    assert not client.arrived


def test_one_refused_peer_refuses_the_whole_request() -> None:
    world = World()
    client = world.client()
    port = client.port()
    with refused(403):
        client.permit(PEER, ("10.0.0.1", 5000))
    world.from_peer(port, PEER, b"in")
    assert not client.arrived


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([], 400),
        ([(Attribute.XOR_PEER_ADDRESS, b"\0\x01\0\0")], 400),
        ([(Attribute.XOR_PEER_ADDRESS, b"\0\x02\x21\x12" + bytes(range(16)))], 443),
    ],
)
def test_permission_that_names_no_usable_address_is_refused(
    attributes: list[tuple[int, bytes]], code: int
) -> None:
    client = World().client()
    client.allocate()
    with refused(code):
        client.request(Method.CREATE_PERMISSION, attributes)


@pytest.mark.parametrize("forbidden", ["::1", "2002:808:808::1", "2a00:1450:4001::7"])
def test_peer_of_another_family_is_443_whatever_else_is_wrong_with_the_request(
    forbidden: str,
) -> None:
    client = World().client()
    client.allocate()
    with refused(443):
        client.permit((forbidden, 5000))
    with refused(443):
        client.permit(("10.0.0.1", 5000), (forbidden, 5000))
    with refused(443):
        client.bind(CHANNEL, (forbidden, 53))


def test_one_malformed_address_among_good_ones_refuses_them_all() -> None:
    world = World()
    client = world.client()
    port = client.port()
    good = (Attribute.XOR_PEER_ADDRESS, PEER)
    with refused(400):
        client.request(
            Method.CREATE_PERMISSION, [good, (Attribute.XOR_PEER_ADDRESS, b"\0\x01\0\0"), good]
        )
    world.from_peer(port, PEER, b"in")
    assert not client.arrived


def test_every_address_of_a_request_is_permitted_in_whatever_order() -> None:
    hosts = [f"8.8.8.{number}" for number in range(4)]
    for order in (hosts, hosts[::-1]):
        world = World()
        client = world.client()
        client.allocate()
        client.permit(*[(host, 0) for host in order])
        for host in hosts:
            client.send((host, 5000), b"out")
        assert [peer[0] for _, peer, _ in world.to_peers] == hosts


def test_permissions_are_bounded_and_ended_ones_make_room() -> None:
    world = World(settings_make(permissions_max=3))
    client = world.client()
    client.allocate()
    client.permit(*[(f"8.8.8.{number}", 5000) for number in range(3)])
    with refused(508):
        client.permit(("8.8.4.4", 5000))
    client.permit(("8.8.8.0", 5000))
    world.pass_seconds(300)
    client.permit(("8.8.4.4", 5000))


def test_send_to_a_port_that_the_policy_refuses_is_dropped() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    for port in (0, 53, 11211):
        client.send((PEER[0], port), b"out")
    assert world.to_peers == []


@pytest.mark.parametrize(
    ("attributes", "sent"),
    [
        ([(Attribute.XOR_PEER_ADDRESS, PEER), (Attribute.DATA, b"x")], 1),
        ([(Attribute.XOR_PEER_ADDRESS, PEER), (Attribute.DATA, b"x"), (0x8ABC, b"optional")], 1),
        ([(Attribute.DATA, b"x")], 0),
        ([(Attribute.XOR_PEER_ADDRESS, PEER)], 0),
        ([(Attribute.XOR_PEER_ADDRESS, address_encode(PEER)[:-1]), (Attribute.DATA, b"x")], 0),
        ([(Attribute.XOR_PEER_ADDRESS, b"\0\x03" + bytes(6)), (Attribute.DATA, b"x")], 0),
        ([(Attribute.XOR_PEER_ADDRESS, ("8.8.4.4", 5000)), (Attribute.DATA, b"x")], 0),
        ([(Attribute.XOR_PEER_ADDRESS, PEER), (Attribute.DATA, b"x"), (0x7ABC, b"required")], 0),
    ],
)
def test_send_that_is_not_whole_valid_permitted_and_understood_is_dropped(
    attributes: Attributes, sent: int
) -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    client.transmit(message_encode(Method.SEND, Kind.INDICATION, attributes))
    assert len(world.to_peers) == sent
    assert not client.arrived  # an indication is never answered


def test_empty_data_is_relayed_like_any_other_both_ways() -> None:
    world = World()
    client = world.client()
    port = client.port()
    client.permit(PEER)
    client.send(PEER, b"")
    world.from_peer(port, PEER, b"")
    assert message_decode(client.arrived[0]).attributes[Attribute.DATA] == b""
    assert client.receive() == (PEER, b"")
    client.bind(CHANNEL, PEER)
    client.send_channel(CHANNEL, b"")
    world.from_peer(port, PEER, b"")
    assert client.receive() == (CHANNEL, b"")
    assert world.to_peers == [(port, PEER, b"")] * 2


def test_send_whose_data_exceeds_the_packet_is_dropped() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    whole = message_encode(
        Method.SEND,
        Kind.INDICATION,
        [(Attribute.XOR_PEER_ADDRESS, address_encode(PEER)), (Attribute.DATA, b"four")],
    )
    client.transmit(whole)
    longer = whole[:-6] + b"\xff\xff" + whole[-4:]
    client.transmit(longer)
    assert [data for _, _, data in world.to_peers] == [b"four"]


def test_data_indication_names_the_peer_and_holds_its_data_and_nothing_else() -> None:
    world = World()
    client, bystander = world.client(), world.client(("192.0.2.8", 40000))
    port = client.port()
    bystander.allocate()
    client.permit(PEER)
    world.from_peer(port, (PEER[0], 7777), b"in")
    message = message_decode(client.arrived.pop())
    assert (message.method, message.kind) == (Method.DATA, Kind.INDICATION)
    assert message.address(Attribute.XOR_PEER_ADDRESS) == (PEER[0], 7777)
    assert message.attributes[Attribute.DATA] == b"in"
    assert len(message.all) == 2
    assert not bystander.arrived


def test_data_indication_is_padded_with_zero_bytes() -> None:
    world = World()
    client = world.client()
    port = client.port()
    client.permit(PEER)
    world.from_peer(port, PEER, b"12345")
    datagram = client.arrived.pop()
    assert message_decode(datagram).attributes[Attribute.DATA] == b"12345"
    assert datagram.endswith(b"12345\0\0\0")


def test_send_without_an_allocation_is_dropped() -> None:
    world = World()
    client = world.client()
    client.send(PEER, b"out")
    client.transmit(channeldata_encode(CHANNEL, b"out"))
    assert world.to_peers == []


def test_peers_beyond_what_the_log_holds_are_not_relayed_to() -> None:
    world = World(settings_make(peers_max=2))
    client = world.client()
    port = client.port()
    client.permit(PEER)
    for number in range(4):
        client.send((PEER[0], 5000 + number), b"out")
    assert [peer[1] for _, peer, _ in world.to_peers] == [5000, 5001]
    world.from_peer(port, (PEER[0], 6000), b"in")
    assert not client.arrived
    assert world.started[0].peers_unreported == [(PEER[0], 5000), (PEER[0], 5001)]


# --- Channels -------------------------------------------------------------------------------------


def test_channel_carries_data_both_ways() -> None:
    world = World()
    client = world.client()
    port = client.port()
    client.bind(CHANNEL, PEER)
    client.send_channel(CHANNEL, b"out")
    world.from_peer(port, PEER, b"in")
    assert world.to_peers == [(port, PEER, b"out")]
    assert client.receive() == (CHANNEL, b"in")


def test_channel_binding_ends_exactly_at_its_deadline() -> None:
    world = World()
    client = world.client()
    port = client.allocate(3600)[1]
    client.bind(CHANNEL, PEER)
    for _ in range(3):
        world.pass_seconds(150)
        client.permit(PEER)
    world.pass_seconds(149.9)
    client.send_channel(CHANNEL, b"last")
    world.pass_seconds(0.1)
    client.send_channel(CHANNEL, b"late")
    world.from_peer(port, PEER, b"in")
    assert [data for _, _, data in world.to_peers] == [b"last"]
    assert client.receive() == (PEER, b"in")  # the permission lives: a Data indication


def test_channel_carries_nothing_without_a_live_permission() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.bind(CHANNEL, PEER)
    world.pass_seconds(300)
    client.send_channel(CHANNEL, b"out")
    assert world.to_peers == []
    client.permit(PEER)
    client.send_channel(CHANNEL, b"out")
    assert len(world.to_peers) == 1


@pytest.mark.parametrize("number", [0x0000, 0x3FFF, 0x8000, 0xFFFF])
def test_number_outside_the_range_is_a_bad_request(number: int) -> None:
    client = World().client()
    client.allocate()
    with refused(400):
        client.bind(number, PEER)


def test_strict_setting_refuses_numbers_above_0x4fff() -> None:
    for limit, accepted in ((0x7FFF, True), (0x4FFF, False)):
        client = World(settings_make(channel_number_max=limit)).client()
        client.allocate()
        if accepted:
            client.bind(0x5000, PEER)
        else:
            with refused(400):
                client.bind(0x5000, PEER)


def test_channel_and_peer_are_bound_one_to_one() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.bind(CHANNEL, PEER)
    client.bind(CHANNEL, PEER)
    with refused(400):
        client.bind(CHANNEL, ("8.8.4.4", 5000))
    with refused(400):
        client.bind(CHANNEL + 1, PEER)
    with refused(400):  # whatever else may be said about that peer
        client.bind(CHANNEL, ("10.0.0.1", 5000))
    world.pass_seconds(599)
    client.refresh(600)
    world.pass_seconds(1)
    client.bind(CHANNEL + 1, PEER)
    client.bind(CHANNEL, ("8.8.4.4", 5000))
    client.send_channel(CHANNEL, b"x")
    assert world.to_peers[-1][1] == ("8.8.4.4", 5000)


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([(Attribute.XOR_PEER_ADDRESS, address_encode(PEER))], 400),
        ([(Attribute.CHANNEL_NUMBER, PAIR.pack(CHANNEL, 0))], 400),
        (
            [
                (Attribute.CHANNEL_NUMBER, b"\x40\x00"),
                (Attribute.XOR_PEER_ADDRESS, address_encode(PEER)),
            ],
            400,
        ),
        (
            [
                (Attribute.CHANNEL_NUMBER, PAIR.pack(CHANNEL, 0)),
                (Attribute.XOR_PEER_ADDRESS, address_encode(("127.0.0.1", 5000))),
            ],
            403,
        ),
        (
            [
                (Attribute.CHANNEL_NUMBER, PAIR.pack(CHANNEL, 0)),
                (Attribute.XOR_PEER_ADDRESS, address_encode(("8.8.8.8", 53))),
            ],
            403,
        ),
    ],
)
def test_channel_bind_that_cannot_be_met_is_refused_with_its_code(
    attributes: list[tuple[int, bytes]], code: int
) -> None:
    client = World().client()
    client.allocate()
    with refused(code):
        client.request(Method.CHANNEL_BIND, attributes)


def test_channels_are_bounded_and_ended_ones_make_room() -> None:
    world = World(settings_make(channels_max=2))
    client = world.client()
    client.allocate(3600)
    client.bind(CHANNEL, (PEER[0], 5000))
    client.bind(CHANNEL + 1, (PEER[0], 5001))
    with refused(508):
        client.bind(CHANNEL + 2, (PEER[0], 5002))
    world.pass_seconds(600)
    client.bind(CHANNEL + 2, (PEER[0], 5002))


@pytest.mark.parametrize(
    "datagram",
    [b"\x40", b"\x40\0\0", b"\x40\0\0\x05four", b"\x40\0\0\x01" + b"12345", b"\x40\x01\0\x01x"],
)
def test_malformed_channeldata_is_dropped_and_not_counted(datagram: bytes) -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.bind(CHANNEL, PEER)
    before = world.started[0].client_received_bytes
    client.transmit(datagram)
    assert world.to_peers == []
    assert world.started[0].client_received_bytes == before


def test_padding_behind_channeldata_is_not_relayed() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.bind(CHANNEL, PEER)
    for padding in range(4):
        client.transmit(channeldata_encode(CHANNEL, b"x" * (4 - padding)) + bytes(padding))
    assert [len(data) for _, _, data in world.to_peers] == [4, 3, 2, 1]


def test_peer_of_a_channel_is_logged_at_its_first_data() -> None:
    for outward in (True, False):
        world = World()
        client = world.client()
        port = client.port()
        client.bind(CHANNEL, PEER)
        assert world.started[0].peers_unreported == []
        if outward:
            client.send_channel(CHANNEL, b"out")
        else:
            world.from_peer(port, PEER, b"in")
        assert world.started[0].peers_unreported == [PEER]


def test_channels_beyond_what_the_log_holds_carry_nothing() -> None:
    world = World(settings_make(peers_max=1))
    client = world.client()
    port = client.port()
    client.bind(CHANNEL, PEER)
    client.bind(CHANNEL + 1, (PEER[0], 6000))
    client.send_channel(CHANNEL, b"first")
    client.send_channel(CHANNEL + 1, b"second")
    world.from_peer(port, (PEER[0], 6000), b"in")
    assert [data for _, _, data in world.to_peers] == [b"first"]
    assert not client.arrived


# --- Counters -------------------------------------------------------------------------------------


def test_counters_equal_what_the_client_sent_and_received_after_authentication() -> None:
    world = World()
    client = world.client()
    port = client.port()
    challenge_sent, challenge_received = client.sent[0], client.received[0]
    client.permit(PEER)
    client.send(PEER, b"a" * 101)
    world.from_peer(port, PEER, b"b" * 55)
    client.bind(CHANNEL, PEER)
    client.send_channel(CHANNEL, b"c" * 999)
    world.from_peer(port, PEER, b"d" * 333)
    while client.arrived:
        client.receive()
    allocation = world.started[0]
    assert allocation.client_received_bytes == sum(client.sent) - challenge_sent
    assert allocation.client_sent_bytes == sum(client.received) - challenge_received
    assert allocation.peer_sent_bytes == 101 + 999
    assert allocation.peer_received_bytes == 55 + 333


def test_refused_requests_and_bindings_count_as_nobodys_bytes() -> None:
    world = World()
    client = world.client()
    client.allocate()
    allocation = world.started[0]
    before = allocation.client_received_bytes, allocation.client_sent_bytes
    client.binding()
    with refused(403):
        client.permit(("10.0.0.1", 5000))
    client.send(PEER, b"no permission")
    assert (allocation.client_received_bytes, allocation.client_sent_bytes) == before
