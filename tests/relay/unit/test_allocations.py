"""What belongs to whom, and for how long: RFC 8656 sections 5 to 9."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, ModuleType

import pytest

from relay.core.limits import ProjectLimits
from relay.core.settings import TurnSettings
from tests.relay.expectations import refused
from tests.relay.fake_link import (
    PEER,
    RELAYED_HOST,
    START,
    FakeClient,
    World,
    credential_make,
    settings_make,
)
from tests.relay.unit.test_authentication import MD5, SHA256, modern
from tests.relay.unit.test_families import DUAL, IPV4, IPV6, PEER6, RELAYED_HOST6, both, dual
from tests.relay.unit.test_methods import DONT_FRAGMENT, LIFETIME_ZERO, answers, signed
from tests.turn_client import (
    PAIR,
    UDP_PROTOCOL,
    Attribute,
    Attributes,
    Kind,
    Message,
    Method,
    long_term_key,
    message_encode,
)

CHANNEL = 0x4000
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
SOFTWARE = 0x8022
RESERVE = (Attribute.EVEN_PORT, b"\x80")
BIND: Attributes = [
    (Attribute.CHANNEL_NUMBER, PAIR.pack(CHANNEL, 0)),
    (Attribute.XOR_PEER_ADDRESS, PEER),
]
WITHIN_ALLOCATIONS: list[tuple[Method, Attributes]] = [
    (Method.REFRESH, [LIFETIME_ZERO]),
    (Method.REFRESH, []),
    (Method.CREATE_PERMISSION, [(Attribute.XOR_PEER_ADDRESS, PEER)]),
    (Method.CHANNEL_BIND, BIND),
]
OTHER_ADDRESS = ("192.0.2.99", 40000)


def seconds(number: int) -> tuple[int, bytes]:
    return Attribute.LIFETIME, number.to_bytes(4, "big")


def family(value: bytes) -> tuple[int, bytes]:
    return Attribute.REQUESTED_ADDRESS_FAMILY, value


def lifetime_of(answer: Message) -> int:
    return int.from_bytes(answer.attributes[Attribute.LIFETIME], "big")


def ask(client: FakeClient, method: Method, attributes: Attributes = ()) -> Message:
    """One request with the credentials that the client has, and its answer."""
    return client.exchange(method, client.signed(attributes), key=client.key)


# --- whose five-tuple it is -----------------------------------------------------------------------


@pytest.mark.parametrize(("method", "attributes"), WITHIN_ALLOCATIONS)
def test_request_on_a_five_tuple_without_an_allocation_is_437(
    method: Method, attributes: Attributes
) -> None:
    world = World()
    world.client().allocate()
    with refused(437):
        world.client(OTHER_ADDRESS).request(method, attributes)
    assert len(world.open_ports) == 1


def test_data_on_a_five_tuple_without_an_allocation_is_ignored_in_silence() -> None:
    world = World()
    client, stranger = world.client(), world.client(OTHER_ADDRESS)
    client.allocate()
    client.bind(CHANNEL, PEER)
    for sender in (stranger, client):
        sender.send(PEER, b"indication")
        sender.send_channel(CHANNEL, b"channel")
        assert not sender.arrived
        assert len(world.to_peers) == (2 if sender is client else 0)


@pytest.mark.parametrize(("method", "attributes"), WITHIN_ALLOCATIONS)
def test_request_of_another_user_is_441_and_changes_nothing(
    method: Method, attributes: Attributes
) -> None:
    world = World()
    port = world.client().port()
    other = world.client(credential=credential_make(world.now, project="prj_other"))
    with refused(441):
        other.request(method, attributes)
    with refused(437):
        other.allocate()
    assert list(world.open_ports) == [port]
    allocation = world.started[0]
    assert (allocation.permissions, allocation.channels) == ({}, {})


@pytest.mark.parametrize(
    ("method", "attributes"), [*WITHIN_ALLOCATIONS, (Method.ALLOCATE, [REQUESTED])]
)
def test_request_that_proves_nothing_is_401_and_changes_nothing(
    method: Method, attributes: Attributes
) -> None:
    world = World()
    client = world.client()
    client.allocate()
    if method is Method.ALLOCATE:
        client = world.client(OTHER_ADDRESS)
    assert client.exchange(method, attributes).error_code == 401
    assert client.exchange(method, client.signed(attributes), key=b"guess").error_code in (400, 401)
    assert len(world.open_ports) == 1
    allocation = world.started[0]
    assert (allocation.permissions, allocation.channels) == ({}, {})


# --- what is said and kept of who it is -----------------------------------------------------------


def test_challenge_names_the_realm_that_the_operator_chose() -> None:
    client = World(settings_make(realm="turn.example.org")).client()
    answer = client.exchange(Method.ALLOCATE, [REQUESTED])
    assert answer.attributes[Attribute.REALM] == b"turn.example.org"
    client.allocate()


@pytest.mark.parametrize("offset_seconds", [0, 1, 32, 63])
def test_nonce_ends_within_an_hour_whenever_it_was_made(offset_seconds: int) -> None:
    assert START % 64 == 0  # nonces know the time by 64 seconds
    world = World()
    world.pass_seconds(offset_seconds)
    client = world.client()
    client.allocate(3600)
    for passed, code in ((3000, 0), (536, 0), (65, 438)):
        world.pass_seconds(passed)
        assert ask(client, Method.REFRESH, [seconds(3600)]).error_code == code
    stale = client.nonce
    assert client.refresh(600) == 600
    assert client.nonce != stale


def test_answers_say_nothing_of_the_software() -> None:
    client = World().client()
    found = [client.exchange(Method.ALLOCATE, [REQUESTED])]
    client.challenge_take(found[0])
    found += [ask(client, Method.ALLOCATE, [REQUESTED]) for _ in range(2)]
    found += [ask(client, Method.REFRESH, [LIFETIME_ZERO]) for _ in range(2)]
    assert [answer.error_code for answer in found] == [401, 0, 437, 0, 437]
    assert not any(SOFTWARE in answer.attributes for answer in found)


def reachable(root: object) -> Iterator[object]:
    """Everything that an object holds, but for code."""
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        found = waiting.pop()
        code = (ModuleType, FunctionType, BuiltinFunctionType, type)
        if id(found) not in seen and not isinstance(found, code):
            seen[id(found)] = found
            waiting += gc.get_referents(found)
            yield found


def test_server_keeps_the_keys_that_a_password_makes_and_not_the_password() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    client.bind(CHANNEL, PEER)
    client.refresh(600)
    held = [found for found in reachable(world.turn) if isinstance(found, (str, bytes))]
    assert client.username in held
    for digest in ("md5", "sha256"):
        assert long_term_key(client.username, "turn", client.password, digest) in held
    texts = {found if isinstance(found, bytes) else found.encode() for found in held}
    assert not any(client.password.encode() in text for text in texts)


@pytest.mark.parametrize(("first", "then"), [(MD5, "sha256"), (SHA256, "md5")])
def test_call_takes_either_algorithm_after_its_secret_is_gone(first: bytes, then: str) -> None:
    world = World()
    client = modern(world)
    client.chosen = first
    client.allocate()
    world.turn.settings_replace(replace(world.turn.settings, secrets=(b"the next secret",)))
    assert client.refresh(600) == 600
    client.chosen = SHA256 if then == "sha256" else MD5
    client.key = long_term_key(client.username, "turn", client.password, then)
    assert client.refresh(600) == 600
    client.key = long_term_key(client.username, "turn", "another password", then)
    with refused(401):
        client.refresh(600)


# --- Allocate -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "hosts", "reserves"),
    [
        ([REQUESTED], [RELAYED_HOST], False),
        ([REQUESTED, (Attribute.EVEN_PORT, b"\0")], [RELAYED_HOST], False),
        ([REQUESTED, RESERVE], [RELAYED_HOST], True),
        (DUAL, [RELAYED_HOST, RELAYED_HOST6], False),
    ],
)
def test_success_tells_addresses_lifetime_and_reservation(
    asked: Attributes, hosts: list[str], reserves: bool
) -> None:
    world = World(both())
    client = world.client()
    answer = client.request(Method.ALLOCATE, asked)
    relayed = answer.addresses(Attribute.XOR_RELAYED_ADDRESS)
    assert [host for host, _ in relayed] == hosts
    assert set(relayed) == set(world.relayed)
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == client.address
    assert lifetime_of(answer) == 600
    assert len(answer.attributes.get(Attribute.RESERVATION_TOKEN, b"")) == (8 if reserves else 0)
    assert Attribute.ADDRESS_ERROR_CODE not in answer.attributes
    assert world.turn.table.ports.taken_count == len(hosts) + reserves


def test_even_port_is_even_and_reserves_nothing() -> None:
    world = World()
    for number in range(50):  # as many as there are even ones
        client = world.client(("192.0.2.7", 40000 + number))
        answer = client.request(Method.ALLOCATE, [REQUESTED, (Attribute.EVEN_PORT, b"\0")])
        assert answer.address(Attribute.XOR_RELAYED_ADDRESS)[1] % 2 == 0
    with refused(508):
        world.client(OTHER_ADDRESS).request(
            Method.ALLOCATE, [REQUESTED, (Attribute.EVEN_PORT, b"\0")]
        )
    world.client(OTHER_ADDRESS).allocate()


def test_no_relayed_address_is_anybody_elses() -> None:
    world = World(both(relay_ports=(50000, 50007)))
    taken: list[tuple[str, int]] = []
    one: Attributes = [REQUESTED]
    for number, asked in enumerate((DUAL, [REQUESTED, RESERVE], one, DUAL, one, one, one)):
        client = world.client(("192.0.2.7", 40000 + number))
        taken += client.request(Method.ALLOCATE, asked).addresses(Attribute.XOR_RELAYED_ADDRESS)
    assert len(set(taken)) == len(taken) == 7 + 2  # of IPv4 all but the reserved one
    with refused(508):
        world.client(OTHER_ADDRESS).allocate()


@pytest.mark.replaces_parts
def test_ports_are_of_the_dynamic_range_unless_the_operator_says_otherwise() -> None:
    assert TurnSettings.relay_ports == (49152, 65535)
    world = World(settings_make(relay_ports=TurnSettings.relay_ports))
    ports = {world.client(("192.0.2.7", 40000 + number)).port() for number in range(200)}
    assert len(ports) == 200
    assert min(ports) >= 49152
    assert max(ports) - min(ports) > 200  # drawn, not counted up


def test_lifetime_of_zero_in_an_allocate_is_the_default() -> None:
    world = World()
    assert lifetime_of(world.client().request(Method.ALLOCATE, [REQUESTED, LIFETIME_ZERO])) == 600
    world.pass_seconds(599)
    assert len(world.open_ports) == 1


def test_reservation_is_anybodys_who_has_the_token_for_thirty_seconds() -> None:
    world = World(settings_make(relay_ports=(50000, 50001)))
    first = world.client()
    answer = first.request(Method.ALLOCATE, [REQUESTED, RESERVE])
    port = answer.address(Attribute.XOR_RELAYED_ADDRESS)[1]
    token = answer.attributes[Attribute.RESERVATION_TOKEN]
    with refused(508):
        world.client(("192.0.2.8", 1)).allocate()
    first.refresh(0)  # the reservation outlives what it was made with
    world.pass_seconds(29.9)
    other = world.client(OTHER_ADDRESS, credential_make(world.now, project="prj_other"))
    other.transport = "tcp"
    answer = other.request(
        Method.ALLOCATE, [REQUESTED, (Attribute.RESERVATION_TOKEN, token), seconds(900)]
    )
    assert answer.address(Attribute.XOR_RELAYED_ADDRESS) == (RELAYED_HOST, port + 1)
    assert lifetime_of(answer) == 900


def test_token_that_meets_a_quota_is_good_still() -> None:
    world = World(settings_make(project_limits=ProjectLimits(allocations_max=1)))
    answer = world.client().request(Method.ALLOCATE, [REQUESTED, RESERVE])
    token = (Attribute.RESERVATION_TOKEN, answer.attributes[Attribute.RESERVATION_TOKEN])
    with refused(486):
        world.client(OTHER_ADDRESS).request(Method.ALLOCATE, [REQUESTED, token])
    other = world.client(OTHER_ADDRESS, credential_make(world.now, project="prj_other"))
    other.request(Method.ALLOCATE, [REQUESTED, token])


def test_dont_fragment_from_ipv4_to_ipv6_is_granted_and_ignored() -> None:
    world = World(both())
    client = world.client()
    client.request(Method.ALLOCATE, [*DUAL, DONT_FRAGMENT])
    client.permit(PEER, PEER6)
    for peer, data in ((PEER6, b"six"), (PEER, b"four")):
        whole: Attributes = [
            DONT_FRAGMENT,
            (Attribute.XOR_PEER_ADDRESS, peer),
            (Attribute.DATA, data),
        ]
        client.transmit(message_encode(Method.SEND, Kind.INDICATION, whole))
    assert [data for _, _, data in world.to_peers] == [b"six", b"four"]
    assert world.unfragmented == [b"four"]


# --- Refresh --------------------------------------------------------------------------------------


def test_data_refreshes_no_allocation() -> None:
    world = World()
    client = world.client()
    port = client.port()
    world.pass_seconds(400)
    client.bind(CHANNEL, PEER)
    world.pass_seconds(199)
    client.send_channel(CHANNEL, b"out")
    client.send(PEER, b"out")
    world.from_peer(port, PEER, b"in")
    assert (len(world.to_peers), len(client.arrived)) == (2, 1)
    assert list(world.open_ports) == [port]
    world.pass_seconds(1)
    assert world.open_ports == {}


def test_refresh_without_a_family_is_for_both_addresses() -> None:
    world = World(both())
    client, *_ = dual(world)
    world.pass_seconds(500)
    assert client.refresh(0xFFFFFFFF) == 3600
    world.pass_seconds(3599)
    assert [host for host, _ in world.relayed] == [RELAYED_HOST, RELAYED_HOST6]
    world.pass_seconds(1)
    assert world.relayed == {}


@pytest.mark.parametrize("value", [IPV6, b"\x03\0\0\0"])
@pytest.mark.parametrize("lifetime", [0, 900])
def test_refresh_with_a_family_that_the_allocation_has_not_is_443_and_changes_nothing(
    value: bytes, lifetime: int
) -> None:
    world = World(both())
    client = world.client()
    client.allocate()
    with refused(443):
        client.request(Method.REFRESH, [seconds(lifetime), family(value)])
    world.pass_seconds(599)
    assert len(world.open_ports) == 1
    world.pass_seconds(1)
    assert world.open_ports == {}


@pytest.mark.parametrize("gone", [IPV4, IPV6])
def test_deleted_half_takes_no_permission_or_channel_of_the_other_one(gone: bytes) -> None:
    world = World(both())
    client, *ports = dual(world)
    peers = (PEER, PEER6)
    for number, peer in enumerate(peers):
        client.bind(CHANNEL + number, peer)
    first, second = answers(client, signed(client, Method.REFRESH, [LIFETIME_ZERO, family(gone)]))
    assert first == second  # sent again, it deletes nothing more
    left = 0 if gone == IPV6 else 1
    assert list(world.relayed) == [((RELAYED_HOST, RELAYED_HOST6)[left], ports[left])]
    for number, peer in enumerate(peers):
        client.send(peer, b"indication")
        client.send_channel(CHANNEL + number, b"channel")
    assert [sent[:2] for sent in world.to_peers] == [(ports[left], peers[left])] * 2
    world.from_peer(ports[left], peers[left], b"in")
    assert client.receive() == (CHANNEL + left, b"in")
    allocation = world.started[0]
    assert (len(allocation.permissions), len(allocation.channels)) == (1, 1)


# --- Permissions ----------------------------------------------------------------------------------


def test_permission_is_installed_and_refreshed_by_either_request_and_by_nothing_else() -> None:
    world = World()
    client = world.client()
    port = client.allocate(3600)[1]

    def passes() -> bool:
        """Whether a peer is heard; it has another port than the channel."""
        client.arrived.clear()
        world.from_peer(port, (PEER[0], 5009), b"in")
        client.send((PEER[0], 5009), b"out")
        client.send_channel(CHANNEL, b"out")
        return bool(client.arrived)

    assert not passes()
    for binds in (False, True, False, True):
        if binds:
            client.bind(CHANNEL, PEER)
        else:
            client.permit((PEER[0], 1))
        world.pass_seconds(299.9)
        assert passes()
    world.pass_seconds(0.1)
    assert not passes()
    client.bind(CHANNEL, PEER)
    assert passes()


def test_permission_of_one_allocation_is_nothing_to_another() -> None:
    world = World()
    client, other = world.client(), world.client(OTHER_ADDRESS)
    port, port_of_other = client.port(), other.port()
    client.permit(PEER)
    other.send(PEER, b"out")
    world.from_peer(port_of_other, PEER, b"in")
    assert world.to_peers == []
    assert not other.arrived
    world.from_peer(port, PEER, b"in")
    assert client.receive() == (PEER, b"in")


@pytest.mark.parametrize("is_deleted", [True, False])
def test_next_allocation_of_a_five_tuple_begins_with_no_permission_and_no_channel(
    is_deleted: bool,
) -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.pass_seconds(590)
    client.bind(CHANNEL, PEER)
    if is_deleted:
        client.refresh(0)
    world.pass_seconds(10)
    assert world.open_ports == {}
    port = client.port()
    client.send(PEER, b"out")
    client.send_channel(CHANNEL, b"out")
    world.from_peer(port, PEER, b"in")
    assert world.to_peers == []
    assert not client.arrived
