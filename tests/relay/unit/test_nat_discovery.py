"""NAT behaviour discovery: RFC 5780."""

from __future__ import annotations

import socket
import struct

import pytest
from pytest_django import Settings

from relay.core.access_tokens import ThirdParty
from relay.core.addresses import FiveTuple, SockAddress
from relay.core.effects import SendToClient
from relay.core.settings import NatDiscovery
from relay.core.turn import TurnServer
from relay.management.commands.runrelay import nat_discovery
from tests.relay.expectations import refused
from tests.relay.fake_link import START, World, settings_make
from tests.relay.tokens import THIRD_PARTY
from tests.turn_client import UDP_PROTOCOL, Attribute, Attributes, Kind, Message, Method
from tests.turn_client import message_decode as decode
from tests.turn_client import message_encode as encode

FIRST, OTHER = "198.51.100.1", "198.51.100.2"
PORTS = (3478, 3479)
CLIENT = ("192.0.2.7", 40000)
HOSTS_6 = ("2001:db8::1", "2001:db8::2")
CLIENT_6 = ("2001:db8::7", 40000)
MAPPED_ADDRESS, CHANGE_REQUEST, PADDING, RESPONSE_PORT = 0x0001, 0x0003, 0x0026, 0x0027
RESPONSE_ORIGIN, OTHER_ADDRESS = 0x802B, 0x802C
WISHES = (CHANGE_REQUEST, RESPONSE_PORT, PADDING)
TOLD = {Attribute.XOR_MAPPED_ADDRESS, MAPPED_ADDRESS, RESPONSE_ORIGIN, OTHER_ADDRESS}
# The most that fits into an IP packet of 64 KiB, under the headers of IPv6 and UDP.
DATAGRAM_LENGTH_MAX = 65535 - 40 - 8


def turn_make(hosts: tuple[str, str]) -> TurnServer:
    return World(settings_make(nat_discovery=NatDiscovery(hosts=hosts, ports=PORTS))).turn


@pytest.fixture
def turn() -> TurnServer:
    return turn_make((FIRST, OTHER))


@pytest.fixture
def turn_6() -> TurnServer:
    return turn_make(HOSTS_6)


def asked(turn: TurnServer, attributes: Attributes, five_tuple: FiveTuple) -> SendToClient:
    datagram = encode(Method.BINDING, Kind.REQUEST, attributes)
    (effect,) = turn.receive_from_client(datagram, five_tuple, START)
    assert isinstance(effect, SendToClient)
    return effect


def ask(
    turn: TurnServer,
    attributes: Attributes = (),
    server: SockAddress = (FIRST, PORTS[0]),
    transport: str = "udp",
) -> tuple[FiveTuple, Message]:
    """Where the answer to a Binding request comes from and goes to, and the answer."""
    effect = asked(turn, attributes, FiveTuple(transport, CLIENT, server))
    return effect.five_tuple, decode(effect.datagram)


def plain(value: bytes) -> SockAddress:
    zero, number, port = struct.unpack_from("!BBH", value)
    family, length = {1: (socket.AF_INET, 4), 2: (socket.AF_INET6, 16)}[number]
    assert (zero, len(value)) == (0, 4 + length)
    return socket.inet_ntop(family, value[4:]), port


@pytest.mark.parametrize("host", [FIRST, OTHER])
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_every_answer_says_where_it_comes_from_and_what_other_address_there_is(
    turn: TurnServer, transport: str, host: str, port: int
) -> None:
    target, answer = ask(turn, server=(host, port), transport=transport)
    assert target == FiveTuple(transport, CLIENT, (host, port))
    assert answer.attributes.keys() == TOLD
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == CLIENT
    assert plain(answer.attributes[MAPPED_ADDRESS]) == CLIENT
    assert plain(answer.attributes[RESPONSE_ORIGIN]) == (host, port)
    assert plain(answer.attributes[OTHER_ADDRESS]) == (
        OTHER if host == FIRST else FIRST,
        sum(PORTS) - port,
    )


@pytest.mark.parametrize("attributes", [[], [(CHANGE_REQUEST, bytes((0, 0, 0, 6)))]])
def test_request_without_the_magic_cookie_gets_silence(
    turn: TurnServer, attributes: Attributes
) -> None:
    datagram = encode(Method.BINDING, Kind.REQUEST, attributes)
    five_tuple = FiveTuple("udp", CLIENT, (FIRST, PORTS[0]))
    assert turn.receive_from_client(datagram, five_tuple, START)
    old = datagram[:4] + b"rfc3" + datagram[8:]
    assert turn.receive_from_client(old, five_tuple, START) == []


def test_addresses_of_ipv6_are_told_as_such(turn_6: TurnServer) -> None:
    first, other = HOSTS_6
    effect = asked(
        turn_6,
        [(CHANGE_REQUEST, bytes((0, 0, 0, 4)))],
        FiveTuple("udp", CLIENT_6, (first, PORTS[1])),
    )
    answer = decode(effect.datagram)
    assert effect.five_tuple.server == plain(answer.attributes[RESPONSE_ORIGIN])
    assert plain(answer.attributes[RESPONSE_ORIGIN]) == (other, PORTS[1])
    assert plain(answer.attributes[OTHER_ADDRESS]) == (other, PORTS[0])
    assert plain(answer.attributes[MAPPED_ADDRESS]) == CLIENT_6
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == CLIENT_6


@pytest.mark.parametrize("host", [FIRST, OTHER])
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("change_ip", [False, True])
@pytest.mark.parametrize("change_port", [False, True])
def test_answer_comes_from_the_address_that_the_request_wishes(
    turn: TurnServer, host: str, port: int, change_ip: bool, change_port: bool
) -> None:
    other_host = OTHER if host == FIRST else FIRST
    other_port = sum(PORTS) - port
    flags = 4 * change_ip + 2 * change_port
    target, answer = ask(turn, [(CHANGE_REQUEST, bytes((0, 0, 0, flags)))], (host, port))
    origin = (other_host if change_ip else host, other_port if change_port else port)
    assert target == FiveTuple("udp", CLIENT, origin)
    assert plain(answer.attributes[RESPONSE_ORIGIN]) == origin
    assert plain(answer.attributes[OTHER_ADDRESS]) == (other_host, other_port)
    assert plain(answer.attributes[MAPPED_ADDRESS]) == CLIENT
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == CLIENT


@pytest.mark.parametrize("flags", range(256))
def test_two_bits_of_a_change_request_count_and_no_others(turn: TurnServer, flags: int) -> None:
    target, _ = ask(turn, [(CHANGE_REQUEST, bytes((0xFF, 0xFF, 0xFF, flags)))])
    assert target.server == (OTHER if flags & 4 else FIRST, PORTS[bool(flags & 2)])


@pytest.mark.parametrize("value", [b"\x9c\x41\0\0", b"\x9c\x41"])
def test_answer_goes_to_the_response_port(turn: TurnServer, value: bytes) -> None:
    target, answer = ask(turn, [(RESPONSE_PORT, value)])
    assert target == FiveTuple("udp", (CLIENT[0], 0x9C41), (FIRST, PORTS[0]))
    assert answer.address(Attribute.XOR_MAPPED_ADDRESS) == CLIENT
    assert answer.attributes.keys() == TOLD


def test_answer_comes_from_one_address_and_goes_to_another_port_at_once(turn: TurnServer) -> None:
    wishes = [(RESPONSE_PORT, b"\x9c\x41\0\0"), (CHANGE_REQUEST, bytes((0, 0, 0, 6)))]
    target, answer = ask(turn, wishes)
    assert target == FiveTuple("udp", (CLIENT[0], 0x9C41), (OTHER, PORTS[1]))
    assert plain(answer.attributes[RESPONSE_ORIGIN]) == (OTHER, PORTS[1])


def test_padding_is_answered_with_as_many_zero_bytes(turn: TurnServer) -> None:
    _, answer = ask(turn, [(PADDING, b"x" * 1000)])
    assert answer.attributes[PADDING] == bytes(1000)
    assert PADDING not in ask(turn)[1].attributes


@pytest.mark.parametrize(("sent", "answered"), [(0, 0), (1, 4), (3, 4), (4, 4), (1497, 1500)])
def test_padding_of_an_answer_is_a_multiple_of_four_bytes(
    turn: TurnServer, sent: int, answered: int
) -> None:
    wishes = [(PADDING, b"x" * sent), (CHANGE_REQUEST, bytes((0, 0, 0, 6)))]
    target, answer = ask(turn, wishes)
    assert answer.attributes[PADDING] == bytes(answered)
    assert target.server == (OTHER, PORTS[1])


@pytest.mark.parametrize("length", range(65300, 65509, 4))
def test_answer_with_padding_fits_into_a_packet(
    turn: TurnServer, turn_6: TurnServer, length: int
) -> None:
    five_tuples = {
        turn: FiveTuple("udp", CLIENT, (FIRST, PORTS[0])),
        turn_6: FiveTuple("udp", CLIENT_6, (HOSTS_6[0], PORTS[0])),
    }
    for server, five_tuple in five_tuples.items():
        answer = asked(server, [(PADDING, bytes(length))], five_tuple).datagram
        assert len(answer) <= DATAGRAM_LENGTH_MAX
        assert len(decode(answer).attributes[PADDING]) >= min(length, 65300)


@pytest.mark.parametrize(
    "attributes",
    [
        [(RESPONSE_PORT, b"\x9c\x41\0\0"), (PADDING, bytes(8))],
        [(RESPONSE_PORT, b"\x9c\x41"), (PADDING, b""), (CHANGE_REQUEST, bytes((0, 0, 0, 6)))],
        [(RESPONSE_PORT, bytes(4))],
        [(RESPONSE_PORT, b"\x9c")],
        [(CHANGE_REQUEST, b"\0")],
    ],
)
def test_wish_that_makes_no_sense_is_a_bad_request(
    turn: TurnServer, attributes: Attributes
) -> None:
    target, answer = ask(turn, attributes)
    assert answer.error_code == 400
    assert target == FiveTuple("udp", CLIENT, (FIRST, PORTS[0]))


@pytest.mark.parametrize("attribute", WISHES)
def test_wishes_are_unknown_without_discovery_and_on_streams(
    turn: TurnServer, attribute: int
) -> None:
    for server, transport in (
        *((World().turn, transport) for transport in ("udp", "tcp", "tls", "dtls")),
        *((turn, transport) for transport in ("tcp", "tls", "dtls")),
    ):
        _, answer = ask(server, [(attribute, bytes(4))], transport=transport)
        assert answer.error_code == 420
        assert answer.attributes[0x000A] == attribute.to_bytes(2, "big")


@pytest.mark.parametrize("server", [(FIRST, 5349), ("198.51.100.3", PORTS[0]), ("::1", PORTS[0])])
def test_address_without_another_one_knows_nothing_of_discovery(
    turn: TurnServer, server: SockAddress
) -> None:
    assert ask(turn, server=server)[1].attributes.keys() == {Attribute.XOR_MAPPED_ADDRESS}
    for attribute in WISHES:
        assert ask(turn, [(attribute, bytes(4))], server)[1].error_code == 420


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "dtls"])
def test_no_other_address_is_told_without_discovery_and_under_encryption(
    turn: TurnServer, transport: str
) -> None:
    told = {Attribute.XOR_MAPPED_ADDRESS}
    assert ask(World().turn, transport=transport)[1].attributes.keys() == told
    if transport in ("tls", "dtls"):
        assert ask(turn, transport=transport)[1].attributes.keys() == told


@pytest.mark.parametrize("third_party", [None, THIRD_PARTY], ids=["passwords", "tokens too"])
@pytest.mark.parametrize("attribute", WISHES)
def test_wishes_are_unknown_in_other_requests(
    attribute: int, third_party: ThirdParty | None
) -> None:
    discovery = NatDiscovery(hosts=(FIRST, OTHER), ports=PORTS)
    settings = settings_make(nat_discovery=discovery, third_party=third_party)
    client = World(settings).client()
    asked_for = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
    with refused(420):
        client.request(Method.ALLOCATE, [asked_for, (attribute, bytes(4))])
    client.allocate()
    with refused(420):
        client.request(Method.REFRESH, [(attribute, bytes(4))])


def test_unknown_attribute_is_420_with_discovery_too(turn: TurnServer) -> None:
    wishes = [(0x7777, b""), (CHANGE_REQUEST, bytes((0, 0, 0, 6))), (RESPONSE_PORT, b"\1\1\0\0")]
    target, answer = ask(turn, wishes)
    assert answer.error_code == 420
    assert answer.attributes[0x000A] == b"\x77\x77"
    assert target == FiveTuple("udp", CLIENT, (FIRST, PORTS[0]))


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, NatDiscovery((FIRST, OTHER), PORTS)),
        ({"TURN_OTHER_ADDRESS": HOSTS_6[1]}, NatDiscovery(HOSTS_6, PORTS)),
        ({"TURN_OTHER_ADDRESS": ""}, None),
    ],
)
def test_second_address_goes_with_the_first_of_its_family(
    settings: Settings, changed: dict[str, object], found: NatDiscovery | None
) -> None:
    discovery_set(settings, changed)
    assert nat_discovery(settings) == found


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"TURN_OTHER_ADDRESS": FIRST}, "OTHER_ADDRESS is .* names first: set it"),
        ({"TURN_OTHER_PORT": PORTS[0]}, "OTHER_PORT and .* are both"),
        ({"TURN_LISTEN_ADDRESSES": ["0.0.0.0", HOSTS_6[0]]}, "LISTEN_ADDRESS must name"),
        ({"TURN_LISTEN_ADDRESSES": [HOSTS_6[0]]}, "LISTEN_ADDRESS must name"),
    ],
)
def test_second_address_and_port_have_to_be_others_and_the_first_ones_known(
    settings: Settings, changed: dict[str, object], why: str
) -> None:
    discovery_set(settings, changed)
    with pytest.raises(ValueError, match=why):
        nat_discovery(settings)


def discovery_set(settings: Settings, changed: dict[str, object]) -> None:
    """Settings with a second address and port, but for what is `changed`."""
    usual = {
        "TURN_LISTEN_ADDRESSES": [FIRST, HOSTS_6[0]],
        "TURN_PORT": PORTS[0],
        "TURN_OTHER_ADDRESS": OTHER,
        "TURN_OTHER_PORT": PORTS[1],
    }
    for name, value in {**usual, **changed}.items():
        setattr(settings, name, value)
