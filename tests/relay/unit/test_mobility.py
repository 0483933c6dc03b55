"""Mobility with TURN: RFC 8016."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.addresses import FiveTuple
from relay.core.limits import OnExpiry, ProjectLimits
from relay.core.tickets import TICKET_LENGTH, Tickets
from tests.relay.expectations import refused
from tests.relay.fake_link import (
    PEER,
    SERVER,
    FakeClient,
    World,
    credential_make,
    settings_make,
)
from tests.turn_client import (
    UDP_PROTOCOL,
    Attribute,
    Attributes,
    Kind,
    Method,
    message_decode,
    message_encode,
)

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
BOTH_FAMILIES = (Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\2\0\0\0")
# What fits where the path is not known: 576 bytes with the headers of IPv4 and UDP.
DATAGRAM_LENGTH_MAX = 576 - 20 - 8
HOME = ("192.0.2.7", 40000)
AWAY = ("198.18.0.7", 41000)
FARTHER = ("198.18.0.8", 42000)
CHANNEL = 0x4000


def ticket_attribute(ticket: bytes) -> tuple[int, bytes]:
    return Attribute.MOBILITY_TICKET, ticket


class Traveller:
    """A client that can move: an allocation with a channel, and its newest ticket."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.credential = credential_make(world.now)
        self.client = self.at(HOME)
        answer = self.client.request(Method.ALLOCATE, [REQUESTED, ticket_attribute(b"")])
        self.port = answer.address(Attribute.XOR_RELAYED_ADDRESS)[1]
        self.ticket = answer.attributes[Attribute.MOBILITY_TICKET]
        self.client.bind(CHANNEL, PEER)

    def at(self, address: tuple[str, int]) -> FakeClient:
        return self.world.client(address, self.credential)

    def move(self, address: tuple[str, int]) -> FakeClient:
        """Ask from another address to go on there."""
        client = self.at(address)
        answer = client.request(Method.REFRESH, [ticket_attribute(self.ticket)])
        self.ticket = answer.attributes[Attribute.MOBILITY_TICKET]
        return client


def heard(world: World, port: int, *clients: FakeClient) -> list[bool]:
    """Which clients get what a peer sends."""
    world.from_peer(port, PEER, b"in")
    found = [bool(client.arrived) for client in clients]
    for client in clients:
        client.arrived.clear()
    return found


def test_allocation_moves_with_its_port_channels_and_counters_when_the_new_address_is_used() -> (
    None
):
    world = World()
    traveller = Traveller(world)
    home, away = traveller.client, traveller.move(AWAY)
    assert heard(world, traveller.port, home, away) == [True, False]
    home.send_channel(CHANNEL, b"still from home")
    away.send_channel(CHANNEL, b"from away")
    assert [data for _, _, data in world.to_peers] == [b"still from home", b"from away"]
    assert heard(world, traveller.port, home, away) == [False, True]
    home.send_channel(CHANNEL, b"too late")
    assert len(world.to_peers) == 2
    assert world.moved == [HOME]
    assert (len(world.started), len(world.ended)) == (1, 0)
    allocation = world.started[0]
    assert allocation.peer_sent_bytes == len(b"still from home") + len(b"from away")
    with refused(437):
        home.refresh(600)
    away.refresh(600)


def data_send(client: FakeClient) -> None:
    client.send(PEER, b"out")


def permission_ask(client: FakeClient) -> None:
    client.permit(PEER)


def lifetime_ask(client: FakeClient) -> None:
    client.refresh(600)


@pytest.mark.parametrize("use", [data_send, permission_ask, lifetime_ask])
def test_whatever_comes_on_the_new_five_tuple_finishes_the_move(
    use: Callable[[FakeClient], None],
) -> None:
    world = World()
    traveller = Traveller(world)
    away = traveller.move(AWAY)
    use(away)
    away.arrived.clear()
    assert heard(world, traveller.port, traveller.client, away) == [False, True]


def test_quota_is_held_once_while_an_allocation_moves() -> None:
    world = World()
    traveller = Traveller(world)
    entitlements = world.turn.table.entitlements
    away = traveller.move(AWAY)
    assert entitlements.held_count("prj_a") == 1
    away.permit(PEER)
    assert entitlements.held_count("prj_a") == 1
    away.refresh(0)
    assert entitlements.held_count("prj_a") == 0
    assert world.turn.table.ports.taken_count == 0


def test_old_ticket_is_good_until_the_new_five_tuple_is_used() -> None:
    world = World()
    traveller = Traveller(world)
    first = traveller.ticket
    traveller.move(AWAY)
    traveller.ticket = first  # the answer with the second one was lost
    farther = traveller.move(FARTHER)
    assert heard(world, traveller.port, traveller.client, farther) == [True, False]
    farther.permit(PEER)
    farther.arrived.clear()
    assert heard(world, traveller.port, farther) == [True]
    for used in (first, os.urandom(TICKET_LENGTH)):
        with refused(400):
            traveller.at(AWAY).request(Method.REFRESH, [ticket_attribute(used)])
    traveller.move(HOME)


def test_old_connection_that_is_closed_finishes_the_move() -> None:
    world = World()
    traveller = Traveller(world)
    first = traveller.ticket
    home, away = traveller.client, traveller.move(AWAY)
    allocation = world.started[0]
    world.perform(world.turn.client_lost(allocation.five_tuple))
    assert heard(world, traveller.port, home, away) == [False, True]
    assert (world.moved, world.ended) == ([HOME], [])
    home.send_channel(CHANNEL, b"too late")
    assert world.to_peers == []
    with refused(400):
        traveller.at(FARTHER).request(Method.REFRESH, [ticket_attribute(first)])
    traveller.move(FARTHER)


def test_nobody_is_sent_the_data_of_a_call_whose_connection_is_gone() -> None:
    world = World()
    traveller = Traveller(world)
    home, table = traveller.client, world.turn.table
    world.perform(world.turn.client_lost(world.started[0].five_tuple))
    world.from_peer(traveller.port, (PEER[0], PEER[1] + 1), b"without a channel")
    world.icmp(traveller.port, PEER, (3, 1, 0))
    assert heard(world, traveller.port, home) == [False]
    assert world.turn.dropped["client unreachable"] == 3
    home.send_channel(CHANNEL, b"of whoever came after it")
    assert world.to_peers == []
    assert [len(found) for found in table.by_listener().values()] == [1]
    assert world.client(HOME).allocate()[1] != traveller.port
    with refused(437):
        traveller.move(HOME)
    world.perform(world.turn.control.session_end(world.started[0].id))
    assert (len(table.by_id), len(table.adrift)) == (1, 0)


@pytest.mark.parametrize("address", [HOME, AWAY])
def test_call_whose_connection_is_gone_goes_on_where_its_ticket_comes_from(
    address: tuple[str, int],
) -> None:
    world = World()
    traveller = Traveller(world)
    world.perform(world.turn.client_lost(world.started[0].five_tuple))
    traveller.move(address)
    world.perform(world.turn.client_lost(FiveTuple("udp", address, SERVER)))
    again = traveller.move(address)
    data_send(again)
    assert heard(world, traveller.port, again) == [True]
    assert (world.moved, world.turn.table.adrift) == ([HOME], {})
    again.refresh(0)
    assert (len(world.ended), world.turn.table.by_id) == (1, {})


def test_new_connection_that_is_closed_again_leaves_the_old_one() -> None:
    world = World()
    traveller = Traveller(world)
    traveller.move(AWAY)
    world.perform(world.turn.client_lost(FiveTuple("udp", AWAY, SERVER)))
    assert heard(world, traveller.port, traveller.client) == [True]
    assert (world.moved, world.turn.table.moving) == ([], {})


def test_data_from_a_new_address_is_dropped_before_the_ticket_has_come() -> None:
    world = World()
    traveller = Traveller(world)
    away = traveller.at(AWAY)
    away.send(PEER, b"too early")
    away.send_channel(CHANNEL, b"too early")
    assert world.to_peers == []
    assert heard(world, traveller.port, traveller.client, away) == [True, False]


def test_every_ticket_is_another_one() -> None:
    world = World()
    traveller = Traveller(world)
    tickets = [traveller.ticket]
    for address in (AWAY, FARTHER, AWAY):
        data_send(traveller.move(address))
        tickets.append(traveller.ticket)
    assert len(set(tickets)) == 4


def test_ticket_is_a_bad_request_where_the_allocation_is_already() -> None:
    world = World()
    traveller = Traveller(world)
    with refused(400):
        traveller.move(HOME)
    away = traveller.move(AWAY)
    for address in (HOME, AWAY):
        with refused(400):
            traveller.move(address)
    data_send(away)
    with refused(400):
        traveller.move(AWAY)
    assert traveller.at(AWAY).refresh(600) == 600
    traveller.move(HOME)


def test_move_is_asked_for_anew_where_its_answer_was_lost() -> None:
    world = World()
    traveller = Traveller(world)
    lost = traveller.ticket
    traveller.move(AWAY)
    traveller.ticket = lost
    away = traveller.move(AWAY)
    data_send(away)
    assert heard(world, traveller.port, traveller.client, away) == [False, True]


def test_retransmitted_move_gets_the_same_answer() -> None:
    world = World()
    traveller = Traveller(world)
    away = traveller.at(AWAY)
    away.challenge_take(away.exchange(Method.REFRESH))
    datagram = message_encode(
        Method.REFRESH,
        Kind.REQUEST,
        [ticket_attribute(traveller.ticket), *away.credential_attributes()],
        key=away.key,
    )
    away.transmit(datagram)
    away.transmit(datagram)
    data_send(away)
    assert world.moved == [HOME]
    world.pass_seconds(30)
    away.transmit(datagram)
    first, second, third = away.arrived
    assert first == second == third
    assert message_decode(first).kind is Kind.SUCCESS


def test_ticket_is_good_after_the_credential_that_began_the_call_has_ended() -> None:
    world = World(settings_make(project_limits=ProjectLimits(on_expiry=OnExpiry.KEEP)))
    traveller = Traveller(world)
    for _ in range(8):
        world.pass_seconds(500)
        traveller.client.refresh(600)
    assert int(traveller.credential[0].partition(":")[0]) < world.now
    traveller.move(AWAY).permit(PEER)


@pytest.mark.parametrize(
    ("method", "attributes", "code"),
    [
        (Method.ALLOCATE, [REQUESTED, ticket_attribute(b"not empty")], 400),
        (Method.REFRESH, [ticket_attribute(b"")], 400),
        (Method.REFRESH, [ticket_attribute(bytes(TICKET_LENGTH))], 400),
    ],
)
def test_ticket_that_is_none_is_a_bad_request(
    method: Method, attributes: Attributes, code: int
) -> None:
    world = World()
    client = world.client(AWAY)
    if method is Method.REFRESH:
        client.allocate()
    with refused(code):
        client.request(method, attributes)


@pytest.mark.parametrize("has_one", [False, True], ids=["", "with an allocation of his own"])
def test_ticket_of_another_user_is_441(has_one: bool) -> None:
    world = World()
    traveller = Traveller(world)
    stranger = world.client(AWAY, credential_make(world.now, project="prj_b"))
    if has_one:
        stranger.allocate()
    with refused(441):
        stranger.request(Method.REFRESH, [ticket_attribute(traveller.ticket)])
    assert stays_at_home(world, traveller)


def stays_at_home(world: World, traveller: Traveller) -> bool:
    """Whether nothing has come of a request to move."""
    return world.turn.table.moving == {} and heard(world, traveller.port, traveller.client)[0]


def test_ticket_without_the_users_password_is_401() -> None:
    world = World()
    traveller = Traveller(world)
    away = traveller.at(AWAY)
    answer = away.exchange(Method.REFRESH, [ticket_attribute(traveller.ticket)])
    assert answer.error_code == 401
    guessing = world.client(AWAY, (traveller.credential[0], "guess"))
    with refused(401):
        guessing.request(Method.REFRESH, [ticket_attribute(traveller.ticket)])
    assert stays_at_home(world, traveller)


def test_ticket_of_an_allocation_that_has_ended_is_437() -> None:
    world = World()
    traveller = Traveller(world)
    traveller.client.refresh(0)
    with refused(437):
        traveller.move(AWAY)


def test_five_tuple_that_holds_another_allocation_is_437() -> None:
    world = World()
    traveller = Traveller(world)
    away = traveller.at(AWAY)
    away.allocate()
    with refused(437):
        away.request(Method.REFRESH, [ticket_attribute(traveller.ticket)])


def test_allocation_that_did_not_ask_for_it_has_no_ticket() -> None:
    world = World()
    client = world.client()
    answer = client.request(Method.ALLOCATE, [REQUESTED])
    assert Attribute.MOBILITY_TICKET not in answer.attributes
    forged = world.turn.table.tickets.make(world.started[0].id, 1)
    with refused(400):
        client.request(Method.REFRESH, [ticket_attribute(forged)])


def test_mobility_switched_off_is_405() -> None:
    world = World(settings_make(mobility=False))
    client = world.client()
    with refused(405):
        client.request(Method.ALLOCATE, [REQUESTED, ticket_attribute(b"")])
    with refused(400):
        client.request(Method.ALLOCATE, [REQUESTED, ticket_attribute(b"not empty")])
    client.allocate()
    with refused(405):
        client.request(Method.REFRESH, [ticket_attribute(bytes(TICKET_LENGTH))])


def test_mobility_that_is_switched_off_by_a_reload_is_405_for_calls_that_could_move() -> None:
    world = World()
    traveller = Traveller(world)
    world.turn.settings_replace(replace(world.turn.settings, mobility=False))
    with refused(405):
        traveller.move(AWAY)
    assert stays_at_home(world, traveller)


def test_end_of_a_moving_allocation_leaves_nothing() -> None:
    world = World()
    traveller = Traveller(world)
    away = traveller.move(AWAY)
    world.pass_seconds(601)
    assert world.turn.table.moving == {}
    assert world.turn.table.ports.taken_count == 0
    with refused(437):
        away.refresh(600)
    away.allocate()


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_ticket_says_what_was_put_in_and_hides_it(allocation: int, number: int) -> None:
    tickets = Tickets(os.urandom)
    ticket = tickets.make(allocation, number)
    assert tickets.read(ticket) == (allocation, number)
    assert allocation.to_bytes(8, "big") not in ticket
    assert tickets.make(allocation, number ^ 1) != ticket
    assert Tickets(os.urandom).read(ticket) is None


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_ticket_is_as_clients_want_it(allocation: int, number: int) -> None:
    """Coturn's keeps a string of at most 32 bytes: a zero byte ends it."""
    ticket = Tickets(os.urandom).make(allocation, number)
    assert len(ticket) == TICKET_LENGTH <= 32
    assert 0 not in ticket


def test_tickets_of_neighbours_have_no_bit_in_common() -> None:
    tickets = Tickets(os.urandom)
    made = [int.from_bytes(tickets.make(7, number), "big") for number in range(256)]
    everything = (1 << 8 * TICKET_LENGTH) - 1
    ever, always = 0, everything
    for ticket in made:
        ever, always = ever | ticket, always & ticket
    assert (ever, always) == (everything, 0)


def test_answers_with_a_ticket_fit_a_path_that_is_not_known() -> None:
    world = World(settings_make(relay_addresses=("198.51.100.1", "2a00:1450:4001::1")))
    client = world.client(HOME)
    away = world.client(AWAY, (client.username, client.password))
    client.sha256 = away.sha256 = True  # the longer integrity
    answer = client.request(Method.ALLOCATE, [REQUESTED, BOTH_FAMILIES, ticket_attribute(b"")])
    assert len(answer.addresses(Attribute.XOR_RELAYED_ADDRESS)) == 2
    ticket = answer.attributes[Attribute.MOBILITY_TICKET]
    away.request(Method.REFRESH, [ticket_attribute(ticket)])
    assert max(client.received + away.received) <= DATAGRAM_LENGTH_MAX


@given(st.integers(0, TICKET_LENGTH - 1), st.integers(1, 255))
def test_changed_ticket_is_none(at: int, change: int) -> None:
    tickets = Tickets(os.urandom)
    ticket = bytearray(tickets.make(7, 1))
    ticket[at] ^= change
    assert tickets.read(bytes(ticket)) is None
