"""The TURN server from a client's view, over a link without sockets: RFC 8656."""

from __future__ import annotations

import pytest

from tests.relay.expectations import refused
from tests.relay.fake_link import (
    RELAYED_HOST,
    World,
    settings_make,
)
from tests.turn_client import (
    UDP_PROTOCOL,
    Attribute,
    Kind,
    Method,
    TurnError,
    message_decode,
    message_encode,
)

EVEN_PORT = 0x0018
RESERVATION_TOKEN = 0x0022
ADDRESS_FAMILY = 0x0017
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
CHANNEL = 0x4000


def plain(method: int, kind: Kind) -> bytes:
    return message_encode(method, kind, transaction=b"transaction!")


def seconds(number: int) -> bytes:
    return number.to_bytes(4, "big")


# --- Binding --------------------------------------------------------------------------------------


def test_binding_answers_with_the_address_seen_in_32_bytes() -> None:
    client = World().client(("192.0.2.7", 40000))
    assert client.binding() == ("192.0.2.7", 40000)
    assert client.received == [32]


def test_binding_with_an_unknown_required_attribute_is_answered_420_and_names_it() -> None:
    client = World().client()
    answer = client.exchange(Method.BINDING, [(0x0024, seconds(1)), (0x7777, b"")])
    assert answer.error_code == 420
    assert answer.attributes[0x000A] == b"\x00\x24\x77\x77"


def test_unknown_optional_attribute_is_ignored() -> None:
    client = World().client()
    assert client.exchange(Method.BINDING, [(0x8022, b"x" * 40)]).kind is Kind.SUCCESS


@pytest.mark.parametrize(
    "datagram",
    [
        *(b"", b"\0", b"\0" * 19, bytes(20), b"\x80" * 40),
        plain(Method.BINDING, Kind.SUCCESS),
        plain(Method.BINDING, Kind.ERROR),
        plain(Method.BINDING, Kind.INDICATION),
        plain(0x00A, Kind.REQUEST),
        plain(Method.BINDING, Kind.REQUEST) + b"\0",
    ],
)
def test_what_is_no_request_gets_silence(datagram: bytes) -> None:
    client = World().client()
    client.transmit(datagram)
    assert not client.arrived


# --- Allocate and Refresh -------------------------------------------------------------------------


def test_allocate_gives_a_relayed_address_and_the_address_seen() -> None:
    world = World()
    client = world.client()
    answer = client.request(Method.ALLOCATE, [REQUESTED])
    host, port = answer.address(Attribute.XOR_RELAYED_ADDRESS)
    assert host == RELAYED_HOST
    assert port in world.open_ports
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == client.address
    assert world.events == [("accepted", "prj_a")]
    assert [allocation.owner for allocation in world.started] == ["prj_a"]


def test_retransmitted_allocate_gets_the_same_answer_and_another_one_437() -> None:
    world = World()
    client = world.client()
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    signed = [
        REQUESTED,
        (Attribute.USERNAME, client.username.encode()),
        (Attribute.REALM, client.realm),
        (Attribute.NONCE, client.nonce),
    ]
    datagram = message_encode(Method.ALLOCATE, Kind.REQUEST, signed, key=client.key)
    client.transmit(datagram)
    world.pass_seconds(3)
    client.transmit(datagram)
    first, second = client.arrived
    assert first == second
    assert len(world.open_ports) == 1
    client.arrived.clear()
    with refused(437):
        client.allocate()


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([], 400),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x11")], 400),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")], 442),
        ([REQUESTED, (ADDRESS_FAMILY, b"\x02\0\0\0")], 440),
        ([REQUESTED, (ADDRESS_FAMILY, b"\x01")], 400),
        ([REQUESTED, (EVEN_PORT, b"\x80"), (RESERVATION_TOKEN, bytes(8))], 400),
        ([REQUESTED, (ADDRESS_FAMILY, b"\x01\0\0\0"), (RESERVATION_TOKEN, bytes(8))], 400),
        ([REQUESTED, (EVEN_PORT, b"")], 400),
        ([REQUESTED, (RESERVATION_TOKEN, bytes(8))], 508),
        ([REQUESTED, (Attribute.LIFETIME, b"\0")], 400),
        ([REQUESTED, (0x7777, b"")], 420),
    ],
)
def test_allocate_that_cannot_be_met_is_refused_with_its_code(
    attributes: list[tuple[int, bytes]], code: int
) -> None:
    world = World()
    with refused(code):
        world.client().request(Method.ALLOCATE, attributes)
    assert world.open_ports == {}
    assert world.turn.table.ports.taken_count == 0


def test_ports_used_up_is_508_and_a_freed_one_serves_again() -> None:
    world = World(settings_make(relay_ports=(50000, 50003)))
    clients = [world.client(("192.0.2.7", 40000 + number)) for number in range(5)]
    assert {client.port() for client in clients[:4]} == {50000, 50001, 50002, 50003}
    with refused(508):
        clients[4].allocate()
    clients[0].refresh(0)
    clients[4].allocate()


def test_port_that_something_else_has_is_passed_over() -> None:
    world = World(settings_make(relay_ports=(50000, 50003)))
    world.ports_elsewhere = {50000, 50001, 50002}
    ports = set()
    for number in range(40):
        client = world.client(("192.0.2.7", 40000 + number))
        try:
            ports.add(client.port())
            client.refresh(0)
        except TurnError as error:
            assert error.code == 508
    assert ports == {50003}
    assert world.turn.table.ports.taken_count == 0


def test_reserved_pair_is_even_and_the_token_gives_its_odd_half_once() -> None:
    world = World()
    first, second, third = (world.client(("192.0.2.7", 40000 + number)) for number in range(3))
    answer = first.request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
    port = answer.address(Attribute.XOR_RELAYED_ADDRESS)[1]
    token = answer.attributes[RESERVATION_TOKEN]
    assert port % 2 == 0
    answer = second.request(Method.ALLOCATE, [REQUESTED, (RESERVATION_TOKEN, token)])
    assert answer.address(Attribute.XOR_RELAYED_ADDRESS)[1] == port + 1
    with refused(508):
        third.request(Method.ALLOCATE, [REQUESTED, (RESERVATION_TOKEN, token)])


def test_reservation_ends_after_30_seconds_and_its_port_is_free() -> None:
    world = World()
    first, second = world.client(), world.client(("192.0.2.8", 40000))
    token = first.request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")]).attributes[
        RESERVATION_TOKEN
    ]
    world.pass_seconds(31)
    with refused(508):
        second.request(Method.ALLOCATE, [REQUESTED, (RESERVATION_TOKEN, token)])
    assert world.turn.table.ports.taken_count == 1


@pytest.mark.parametrize(
    ("asked", "given"), [(None, 600), (1, 600), (601, 601), (3600, 3600), (2**32 - 1, 3600)]
)
def test_lifetime_is_clamped(asked: int | None, given: int) -> None:
    world = World()
    client = world.client()
    client.allocate(asked)
    if asked is not None:
        assert client.refresh(asked) == given
    world.pass_seconds(given - 0.5)
    assert len(world.open_ports) == 1
    world.pass_seconds(1)
    assert world.open_ports == {}
    assert len(world.ended) == 1


def test_refresh_prolongs_and_refresh_zero_ends_at_once() -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.pass_seconds(500)
    client.refresh(600)
    world.pass_seconds(599)
    assert len(world.open_ports) == 1
    assert client.refresh(0) == 0
    assert world.open_ports == {}
    with refused(437):
        client.refresh(600)


def test_shorter_refresh_ends_the_allocation_earlier() -> None:
    world = World()
    client = world.client()
    client.allocate(3600)
    client.refresh(600)
    world.pass_seconds(601)
    assert world.open_ports == {}


def test_end_of_the_server_ends_every_allocation() -> None:
    world = World()
    for number in range(3):
        world.client(("192.0.2.7", 40000 + number)).allocate()
    world.perform(world.turn.end_all())
    assert len(world.ended) == 3
    assert world.open_ports == {}
    assert world.turn.table.ports.taken_count == 0


# --- What may not grow ----------------------------------------------------------------------------


def test_deadlines_do_not_pile_up_however_often_an_allocation_is_refreshed() -> None:
    world = World()
    client = world.client()
    client.allocate(3600)
    table = world.turn.table
    allocation = world.started[0]
    (relayed,) = allocation.relayed.values()
    for number in range(10_000):
        table.extend(allocation, relayed, world.now + 600 + number % 2 * 3000)
    assert len(table._allocation_deadlines) < 100
    table.extend(allocation, relayed, world.now + 600)
    world.pass_seconds(601)
    assert world.open_ports == {}


def test_deadlines_of_ended_allocations_are_swept_out() -> None:
    world = World()
    client = world.client()
    for _ in range(1000):
        client.allocate()
        client.refresh(0)
    assert len(world.turn.table._allocation_deadlines) < 100
    assert world.turn.table.ports.taken_count == 0


def test_reservation_that_is_used_or_given_up_counts_no_more() -> None:
    world = World(settings_make(reservations_max=1))
    client = world.client()
    for _ in range(4):
        answer = client.request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
        other = world.client(("192.0.2.7", 40001))
        token = (Attribute.RESERVATION_TOKEN, answer.attributes[Attribute.RESERVATION_TOKEN])
        other.request(Method.ALLOCATE, [REQUESTED, token])
        client.refresh(0)
        other.refresh(0)


def test_reservation_ends_to_the_second_whenever_the_deadline_is_handled() -> None:
    for seconds in (29.999, 30.0):
        world = World()
        first, second = world.client(), world.client(("192.0.2.8", 40000))
        second.challenge_take(second.exchange(Method.ALLOCATE))
        answer = first.request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
        world.now += seconds
        asked = [REQUESTED, (RESERVATION_TOKEN, answer.attributes[RESERVATION_TOKEN])]
        if seconds < 30:
            second.request(Method.ALLOCATE, asked)
            continue
        with refused(508):
            second.request(Method.ALLOCATE, asked)
        world.pass_seconds(0)
        assert (world.turn.table.ports.taken_count, world.reserved) == (1, set())


def test_many_reservations_end_some_at_a_time() -> None:
    world = World(settings_make(relay_ports=(50000, 50999)))
    for number in range(300):
        client = world.client(("192.0.2.7", 40000 + number))
        client.request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
    world.now += 31
    assert len(world.reserved) == 300
    world.perform(world.turn.handle_deadline(world.now))
    assert len(world.reserved) == 300 - 256
    world.pass_seconds(0)
    assert world.reserved == set()


def test_lifetime_that_is_told_is_the_one_that_was_asked_for() -> None:
    world = World()
    client = world.client()
    client.challenge_take(client.exchange(Method.ALLOCATE))
    world.opening_is_slow = True  # a socket takes a moment
    client.transmit(
        message_encode(Method.ALLOCATE, Kind.REQUEST, client.signed([REQUESTED]), key=client.key)
    )
    world.now += 0.3
    world.open_all()
    answer = message_decode(client.arrived.popleft())
    assert int.from_bytes(answer.attributes[Attribute.LIFETIME], "big") == 600


def test_reservations_are_bounded() -> None:
    world = World(settings_make(reservations_max=2))
    clients = [world.client(("192.0.2.7", 40000 + number)) for number in range(4)]
    for client in clients[:2]:
        client.request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
    with refused(508):
        clients[2].request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
    world.pass_seconds(31)
    clients[3].request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])


def test_pair_whose_upper_port_is_elsewhere_is_not_given() -> None:
    world = World(settings_make(relay_ports=(50000, 50003)))
    world.ports_elsewhere = {50001}
    first, second = world.client(), world.client(("192.0.2.8", 40000))
    answer = first.request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
    assert answer.address(Attribute.XOR_RELAYED_ADDRESS)[1] == 50002
    world.ports_elsewhere.add(50003)  # too late: it is held
    token = (RESERVATION_TOKEN, answer.attributes[RESERVATION_TOKEN])
    answer = second.request(Method.ALLOCATE, [REQUESTED, token])
    assert answer.address(Attribute.XOR_RELAYED_ADDRESS)[1] == 50003


def test_pair_whose_even_port_fails_is_given_back_whole() -> None:
    world = World()
    world.ports_elsewhere = set(range(50000, 50100))
    with refused(508):
        world.client().request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
    assert (world.turn.table.ports.taken_count, world.reserved) == (0, set())
    world.ports_elsewhere.clear()
    world.client().request(Method.ALLOCATE, [REQUESTED, (EVEN_PORT, b"\x80")])
    assert world.turn.table.ports.taken_count == 2


def test_ports_that_all_fail_are_given_up_after_eight() -> None:
    world = World()
    world.ports_elsewhere = set(range(50000, 50100))
    with refused(508):
        world.client().allocate()
    assert world.openings == 8
    assert world.turn.table.ports.taken_count == 0


def test_want_of_descriptors_is_508_at_once_and_gives_the_port_back() -> None:
    world = World()
    world.no_descriptors = True
    with refused(508):
        world.client().allocate()
    assert world.openings == 1
    assert world.turn.table.ports.taken_count == 0
    world.no_descriptors = False
    world.client(("192.0.2.8", 40000)).allocate()
