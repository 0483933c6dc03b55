"""What surrounds the methods: retransmissions, FINGERPRINT, DONT-FRAGMENT, ICMP, loops."""

from __future__ import annotations

import secrets

import pytest

from relay.core.integrity import fingerprint
from relay.core.policy import PeerPolicyRules
from tests.relay.expectations import refused
from tests.relay.fake_link import PEER, RELAYED_HOST, FakeClient, World, settings_make
from tests.relay.unit.test_families import PEER6, RELAYED_HOST6
from tests.turn_client import (
    PAIR,
    UDP_PROTOCOL,
    Attribute,
    Attributes,
    Kind,
    Method,
    message_decode,
    message_encode,
)

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
LIFETIME_ZERO = (Attribute.LIFETIME, bytes(4))
DONT_FRAGMENT = (Attribute.DONT_FRAGMENT, b"")
SOFTWARE = 0x8022


def signed(client: FakeClient, method: Method, attributes: Attributes) -> bytes:
    """A request that can be sent several times."""
    if not client.key:
        client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    return message_encode(
        method, Kind.REQUEST, [*attributes, *client.credential_attributes()], key=client.key
    )


def answers(client: FakeClient, datagram: bytes, times: int = 2) -> list[bytes]:
    for _ in range(times):
        client.transmit(datagram)
    found = list(client.arrived)
    client.arrived.clear()
    return found


# --- Retransmissions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "attributes"),
    [
        (Method.REFRESH, [(Attribute.LIFETIME, (900).to_bytes(4, "big"))]),
        (Method.REFRESH, [LIFETIME_ZERO]),
        (Method.CREATE_PERMISSION, [(Attribute.XOR_PEER_ADDRESS, PEER)]),
        (
            Method.CHANNEL_BIND,
            [(Attribute.CHANNEL_NUMBER, PAIR.pack(0x4000, 0)), (Attribute.XOR_PEER_ADDRESS, PEER)],
        ),
        (Method.CREATE_PERMISSION, [(Attribute.XOR_PEER_ADDRESS, ("10.0.0.1", 1))]),
    ],
)
def test_retransmitted_request_gets_the_same_answer(method: Method, attributes: Attributes) -> None:
    world = World()
    client = world.client()
    client.allocate()
    first, second = answers(client, signed(client, method, attributes))
    assert first == second


def test_answer_to_a_deleting_refresh_is_remembered_for_40_seconds() -> None:
    world = World()
    client = world.client()
    client.allocate()
    datagram = signed(client, Method.REFRESH, [LIFETIME_ZERO])
    (first,) = answers(client, datagram, 1)
    world.pass_seconds(39)
    assert answers(client, datagram, 1) == [first]
    world.pass_seconds(1)
    (late,) = answers(client, datagram, 1)
    assert message_decode(late).error_code == 437


def test_remembered_answers_are_bounded() -> None:
    world = World(settings_make(answers_max=2))
    client = world.client()
    datagrams = []
    for _ in range(3):
        client.allocate()
        datagrams.append(signed(client, Method.REFRESH, [LIFETIME_ZERO]))
        answers(client, datagrams[-1], 1)
    codes = [message_decode(answers(client, sent, 1)[0]).error_code for sent in datagrams]
    assert codes == [437, 0, 0]


def test_retransmitted_reserving_allocate_gets_the_same_token() -> None:
    world = World()
    client = world.client()
    attributes = [REQUESTED, (Attribute.EVEN_PORT, b"\x80")]
    first, second = answers(client, signed(client, Method.ALLOCATE, attributes))
    assert first == second
    assert world.turn.table.ports.taken_count == 2


# --- FINGERPRINT ----------------------------------------------------------------------------------


def fingerprinted(datagram: bytes) -> bytes:
    length = len(datagram) - 20 + 8
    covered = datagram[:2] + length.to_bytes(2, "big") + datagram[4:]
    return covered + PAIR.pack(Attribute.FINGERPRINT, 4) + fingerprint(covered)


@pytest.mark.parametrize(
    ("method", "attributes"),
    [
        (Method.ALLOCATE, [REQUESTED]),
        (Method.REFRESH, []),
        (Method.CREATE_PERMISSION, [(Attribute.XOR_PEER_ADDRESS, ("10.0.0.1", 1))]),
    ],
)
def test_answer_has_a_fingerprint_where_the_request_has_one(
    method: Method, attributes: Attributes
) -> None:
    client = World().client()
    datagram = signed(client, method, attributes)
    (plain,) = answers(client, datagram, 1)
    client = World().client()
    (marked,) = answers(client, fingerprinted(signed(client, method, attributes)), 1)
    assert Attribute.FINGERPRINT not in message_decode(plain).attributes
    value = message_decode(marked).attributes[Attribute.FINGERPRINT]
    assert value == fingerprint(marked[:-8])
    assert message_decode(marked).error_code == message_decode(plain).error_code


@pytest.mark.parametrize("method", [Method.BINDING, Method.ALLOCATE])
def test_unauthenticated_answer_has_a_fingerprint_where_the_request_has_one(
    method: Method,
) -> None:
    client = World().client()
    transaction = secrets.token_bytes(12)
    datagram = message_encode(method, Kind.REQUEST, transaction=transaction)
    (marked,) = answers(client, fingerprinted(datagram), 1)
    assert marked.endswith(fingerprint(marked[:-8]))


# --- SOFTWARE -------------------------------------------------------------------------------------


def test_no_answer_says_which_software_this_is() -> None:
    world = World()
    client = world.client()
    attributes: Attributes = [
        REQUESTED,
        (Attribute.CHANNEL_NUMBER, PAIR.pack(0x4000, 0)),
        (Attribute.XOR_PEER_ADDRESS, PEER),
    ]
    methods = [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]
    found = [client.exchange(method, attributes) for method in (Method.BINDING, *methods)]
    found += [client.request(method, attributes) for method in methods]
    found += [client.exchange(Method.REFRESH, client.signed([]), key=b"another key")]
    world.from_peer(next(iter(world.open_ports)), (PEER[0], 7777), b"in")
    found.append(message_decode(client.arrived.pop()))
    assert {message.kind for message in found} == {Kind.SUCCESS, Kind.ERROR, Kind.INDICATION}
    assert not any(SOFTWARE in message.attributes for message in found)


# --- DONT-FRAGMENT --------------------------------------------------------------------------------


def test_dont_fragment_is_known_and_holds_for_its_send_only() -> None:
    world = World()
    client = world.client()
    client.request(Method.ALLOCATE, [REQUESTED, DONT_FRAGMENT])
    client.permit(PEER)
    for attributes in ([DONT_FRAGMENT], []):
        whole: Attributes = [
            *attributes,
            (Attribute.XOR_PEER_ADDRESS, PEER),
            (Attribute.DATA, b"%d" % len(attributes)),
        ]
        client.transmit(message_encode(Method.SEND, Kind.INDICATION, whole))
    assert [data for _, _, data in world.to_peers] == [b"1", b"0"]
    assert world.unfragmented == [b"1"]


def test_dont_fragment_is_ignored_between_families_and_from_ipv6() -> None:
    world = World(settings_make(relay_addresses=(RELAYED_HOST, RELAYED_HOST6)))
    for host, relayed, peer in (("192.0.2.7", b"\x02", PEER6), ("2a00:1450::9", b"\x01", PEER)):
        client = world.client((host, 40000))
        family = (Attribute.REQUESTED_ADDRESS_FAMILY, relayed + bytes(3))
        client.request(Method.ALLOCATE, [REQUESTED, family])
        client.permit(peer)
        whole: Attributes = [
            DONT_FRAGMENT,
            (Attribute.XOR_PEER_ADDRESS, peer),
            (Attribute.DATA, b"x"),
        ]
        client.transmit(message_encode(Method.SEND, Kind.INDICATION, whole))
    assert len(world.to_peers) == 2
    assert world.unfragmented == []


@pytest.mark.parametrize("transport", ["tcp", "tls"])
@pytest.mark.parametrize("host", ["192.0.2.7", "2a00:1450::9"])
@pytest.mark.parametrize(("relayed", "peer"), [(b"\x01", PEER), (b"\x02", PEER6)])
def test_dont_fragment_from_a_stream_holds_whatever_the_families(
    transport: str, host: str, relayed: bytes, peer: tuple[str, int]
) -> None:
    world = World(settings_make(relay_addresses=(RELAYED_HOST, RELAYED_HOST6)))
    client = world.client((host, 40000))
    client.transport = transport
    family = (Attribute.REQUESTED_ADDRESS_FAMILY, relayed + bytes(3))
    client.request(Method.ALLOCATE, [REQUESTED, family])
    client.permit(peer)
    for attributes in ([DONT_FRAGMENT], []):
        whole: Attributes = [
            *attributes,
            (Attribute.XOR_PEER_ADDRESS, peer),
            (Attribute.DATA, b"%d" % len(attributes)),
        ]
        client.transmit(message_encode(Method.SEND, Kind.INDICATION, whole))
    assert [data for _, _, data in world.to_peers] == [b"1", b"0"]
    assert world.unfragmented == [b"1"]


# --- ICMP -----------------------------------------------------------------------------------------


def test_icmp_error_about_a_permitted_peer_reaches_the_client() -> None:
    world = World()
    client = world.client()
    port = client.port()
    client.permit(PEER)
    world.icmp(port, PEER, (3, 4, 1400))
    message = message_decode(client.arrived.popleft())
    assert (message.method, message.kind) == (Method.DATA, Kind.INDICATION)
    assert message.address(Attribute.XOR_PEER_ADDRESS) == PEER
    assert Attribute.DATA not in message.attributes
    assert message.attributes[Attribute.ICMP] == bytes.fromhex("00000604") + (1400).to_bytes(
        4, "big"
    )


def icmp_values(peer: tuple[str, int], *errors: tuple[int, int, int]) -> list[bytes]:
    """What a client with a permission for `peer` is told of ICMP errors about it."""
    world = World(settings_make(relay_addresses=(RELAYED_HOST, RELAYED_HOST6)))
    client = world.client()
    family = b"\x02" if ":" in peer[0] else b"\x01"
    requested = (Attribute.REQUESTED_ADDRESS_FAMILY, family + bytes(3))
    answer = client.request(Method.ALLOCATE, [REQUESTED, requested])
    client.permit(peer)
    for error in errors:
        world.icmp(answer.address(Attribute.XOR_RELAYED_ADDRESS)[1], peer, error)
    return [message_decode(datagram).attributes[Attribute.ICMP] for datagram in client.arrived]


@pytest.mark.parametrize(("peer", "told"), [(PEER, {3, 11}), (PEER6, {1, 2, 3})])
def test_icmp_of_another_type_is_dropped(peer: tuple[str, int], told: set[int]) -> None:
    values = icmp_values(peer, *((number, 0, 0) for number in range(128)))
    assert [value[:2] for value in values] == [bytes(2)] * len(told)
    assert {value[2] >> 1 for value in values} == told


@pytest.mark.parametrize(
    ("peer", "error", "value"),
    [
        (PEER, (3, 4, 1400), "00000604 00000578"),
        (PEER, (3, 3, 1400), "00000603 00000000"),
        (PEER, (11, 0, 7), "00001600 00000000"),
        (PEER6, (2, 0, 1400), "00000400 00000578"),
        (PEER6, (1, 4, 0x05000000), "00000204 00000000"),  # the length of an extension, RFC 4884
        (PEER6, (3, 0, 0x05000000), "00000600 00000000"),
    ],
)
def test_icmp_attribute_holds_an_mtu_where_the_error_has_one_and_else_zero(
    peer: tuple[str, int], error: tuple[int, int, int], value: str
) -> None:
    assert icmp_values(peer, error) == [bytes.fromhex(value)]


def test_icmp_error_about_a_peer_with_a_channel_is_a_data_indication() -> None:
    world = World()
    client = world.client()
    port = client.port()
    client.bind(0x4000, PEER)
    world.icmp(port, PEER, (3, 3, 0))
    message = message_decode(client.arrived.popleft())
    assert (message.method, message.kind) == (Method.DATA, Kind.INDICATION)
    assert message.address(Attribute.XOR_PEER_ADDRESS) == PEER
    assert Attribute.ICMP in message.attributes


def test_icmp_error_about_a_peer_without_permission_is_dropped() -> None:
    world = World()
    client = world.client()
    port = client.port()
    world.icmp(port, PEER, (3, 3, 0))
    client.permit(PEER)
    world.pass_seconds(300)
    world.icmp(port, PEER, (3, 3, 0))
    assert not client.arrived


# --- Loops ----------------------------------------------------------------------------------------


HAIRPIN = settings_make(peer_rules=PeerPolicyRules(allowed=(f"{RELAYED_HOST}/32",)))


def test_allocation_is_no_peer_of_itself() -> None:
    world = World(HAIRPIN)
    client = world.client()
    port = client.port()
    own = (RELAYED_HOST, port)
    client.permit(own)
    with refused(403):
        client.bind(0x4000, own)
    client.send(own, b"x")
    assert world.to_peers == []


def test_two_allocations_bound_to_each_other_relay_a_datagram_once() -> None:
    world = World(HAIRPIN)
    first, second = world.client(), world.client(("192.0.2.8", 40000))
    ports = first.port(), second.port()
    first.bind(0x4000, (RELAYED_HOST, ports[1]))
    second.bind(0x4000, (RELAYED_HOST, ports[0]))
    first.send_channel(0x4000, b"once")
    assert world.to_peers == [(ports[0], (RELAYED_HOST, ports[1]), b"once")]
    world.from_peer(ports[1], (RELAYED_HOST, ports[0]), b"once")
    assert second.receive() == (0x4000, b"once")
    assert len(world.to_peers) == 1
    assert not first.arrived


def test_relayed_address_is_no_client() -> None:
    world = World()
    client = world.client()
    port = client.port()
    inside = world.client((RELAYED_HOST, port))
    for method in (Method.BINDING, Method.ALLOCATE):
        with refused(0):
            inside.exchange(method)
    assert world.turn.dropped["relayed address as client"] == 6
    inside.transport = "tcp"  # a port of the same number, and somebody else's
    inside.binding()
    inside.transport = "udp"
    client.refresh(0)
    inside.binding()


# --- Refused peer data ----------------------------------------------------------------------------


def test_data_of_a_peer_without_permission_is_counted_and_costs_no_memory() -> None:
    world = World()
    client = world.client()
    port = client.port()
    allocation = world.started[0]
    for number in range(1000):
        world.from_peer(port, (f"8.8.{number % 250}.1", 1024 + number), b"x" * 100)
    assert not client.arrived
    assert world.turn.dropped["no permission"] == 1000
    assert (allocation.peers, allocation.permissions, allocation.peer_received_bytes) == (
        set(),
        {},
        0,
    )
