"""The base protocol: RFC 8489 sections 5 to 7, 11, 12 and 14."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import replace
from itertools import product

import pytest

from relay.core import error_codes
from relay.core.integrity import fingerprint
from relay.core.stun import error_code_encode
from tests.relay.fake_link import (
    PEER,
    RELAYED_HOST,
    FakeClient,
    World,
    credential_make,
    settings_make,
)
from tests.relay.tokens import THIRD_PARTY, TokenClient
from tests.relay.unit.test_authentication import ModernClient
from tests.relay.unit.test_families import IPV6, RELAYED_HOST6
from tests.relay.unit.test_methods import fingerprinted
from tests.turn_client import (
    MAGIC_COOKIE,
    PAIR,
    UDP_PROTOCOL,
    Attribute,
    Attributes,
    Kind,
    Message,
    Method,
    attributes_encode,
    message_decode,
    message_encode,
)

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
ERROR_CODE, UNKNOWN_ATTRIBUTES, SOFTWARE = 0x0009, 0x000A, 0x8022
TRANSACTION = b"transaction!"
BINDING = message_encode(Method.BINDING, Kind.REQUEST, transaction=TRANSACTION)
IPV4_MESSAGE_MAX = 548  # what fits a path whose MTU nobody knows


def silent(client: FakeClient, datagram: bytes) -> bool:
    """Whether a datagram gets no answer, where a good one does."""
    client.transmit(datagram)
    if client.arrived:
        return False
    client.transmit(BINDING)
    assert message_decode(client.arrived.popleft()).kind is Kind.SUCCESS
    return True


def sent(client: FakeClient, datagram: bytes) -> bytes:
    """The answer to one datagram."""
    client.transmit(datagram)
    (answer,) = client.arrived
    client.arrived.clear()
    return answer


def challenged(client: FakeClient) -> FakeClient:
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    return client


# --- The header -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        b"\x40" + BINDING[1:],
        b"\x80" + BINDING[1:],
        b"\xc0" + BINDING[1:],
        BINDING[:2] + b"\0\x04" + BINDING[4:],
        BINDING[:2] + b"\0\x03" + BINDING[4:] + b"\0\0\0",
        BINDING + bytes(4),
        BINDING[:19],
        *(BINDING[:at] + bytes([BINDING[at] ^ 1]) + BINDING[at + 1 :] for at in range(4, 8)),
        b"\0\x02" + BINDING[2:],
        b"\x3e\xef" + BINDING[2:],
        *(message_encode(method, Kind.REQUEST) for method in (Method.SEND, Method.DATA)),
        *(
            message_encode(method, kind)
            for method, kind in product(Method, Kind)
            if kind is not Kind.REQUEST
        ),
    ],
    ids=lambda datagram: datagram[:8].hex(),
)
def test_one_fault_in_the_header_and_there_is_no_answer(broken: bytes) -> None:
    assert silent(World().client(), broken)


def peer(address: tuple[str, int]) -> tuple[int, tuple[str, int]]:
    return Attribute.XOR_PEER_ADDRESS, address


def test_answer_has_the_header_of_its_request_and_an_error_its_code() -> None:
    client = challenged(World().client())
    signed = client.signed([REQUESTED])
    asked: list[tuple[Method, Attributes, bytes, int]] = [
        (Method.BINDING, [], b"", 0),
        (Method.BINDING, [(0x7777, b"")], b"", 420),
        (Method.ALLOCATE, [REQUESTED], b"", 401),
        (Method.ALLOCATE, [REQUESTED], b"key", 400),
        (Method.ALLOCATE, [*signed, (0x7777, b"")], client.key, 420),
        (Method.REFRESH, signed, client.key, 437),
        (Method.ALLOCATE, signed, client.key, 0),
        (Method.CREATE_PERMISSION, [*signed, peer(PEER)], client.key, 0),
        (Method.CREATE_PERMISSION, [*signed, peer(("10.0.0.1", 1))], client.key, 403),
    ]
    for number, (method, attributes, key, code) in enumerate(asked):
        transaction = bytes([number]) * 12
        request = message_encode(method, Kind.REQUEST, attributes, transaction=transaction, key=key)
        answer = sent(client, request)
        message_type, length = PAIR.unpack_from(answer)
        assert message_type == method | (Kind.ERROR if code else Kind.SUCCESS)
        assert length == len(answer) - 20
        assert length % 4 == 0
        assert answer[4:20] == MAGIC_COOKIE + transaction
        assert message_decode(answer).error_code == code
        assert SOFTWARE not in message_decode(answer).attributes


def test_indications_have_transactions_of_the_random_source() -> None:
    made: list[bytes] = []

    def random_bytes(count: int) -> bytes:
        made.append(secrets.token_bytes(count))
        return made[-1]

    world = World(random_bytes=random_bytes)
    client = world.client()
    port = client.port()
    client.permit(PEER)
    for _ in range(3):
        world.from_peer(port, PEER, b"in")
        world.icmp(port, PEER, (3, 3, 0))
    told = [message_decode(datagram) for datagram in client.arrived]
    assert {(message.method, message.kind) for message in told} == {(Method.DATA, Kind.INDICATION)}
    transactions = {message.transaction for message in told}
    assert len(transactions) == 6
    assert transactions <= set(made)


# --- Attributes that are not understood, or not expected ------------------------------------------


@pytest.mark.parametrize("kind", [0x8021, SOFTWARE, 0x8029, 0xC0DE, 0xFFFF])
def test_optional_attribute_is_ignored_wherever_it_stands(kind: int) -> None:
    world = World()
    client = world.client()
    strange = (kind, b"strange")
    assert client.exchange(Method.BINDING, [strange]).kind is Kind.SUCCESS
    client.request(Method.ALLOCATE, [strange, REQUESTED])
    client.permit(PEER)
    data: Attributes = [strange, peer(PEER), (Attribute.DATA, b"out")]
    client.transmit(message_encode(Method.SEND, Kind.INDICATION, data))
    assert [found for _, _, found in world.to_peers] == [b"out"]


def test_known_attributes_that_make_no_sense_are_ignored() -> None:
    client = World().client()
    senseless: Attributes = [
        (Attribute.LIFETIME, bytes(4)),
        (Attribute.CHANNEL_NUMBER, b""),
        (Attribute.XOR_MAPPED_ADDRESS, b"x"),
        (ERROR_CODE, b"x"),
        (UNKNOWN_ATTRIBUTES, b"\0\1"),
        (Attribute.MESSAGE_INTEGRITY, b"x" * 20),
    ]
    plain = client.exchange(Method.BINDING)
    odd = client.exchange(Method.BINDING, senseless)
    assert odd.address(Attribute.XOR_MAPPED_ADDRESS) == client.address
    assert set(odd.attributes) == set(plain.attributes) == {Attribute.XOR_MAPPED_ADDRESS}
    client.request(Method.ALLOCATE, [REQUESTED, senseless[1], senseless[2], senseless[3]])


@pytest.mark.parametrize("unknown", [[0x7777], [0x7777, 0x0024, 0x0003], [0x7777, 0x7777]])
def test_unknown_required_attributes_are_named_once_authentication_is_done(
    unknown: list[int],
) -> None:
    client = World().client()
    strange = [(kind, b"") for kind in unknown]
    assert client.exchange(Method.ALLOCATE, [REQUESTED, *strange]).error_code == 401
    challenged(client)
    signed = client.signed([REQUESTED, *strange])
    assert client.exchange(Method.ALLOCATE, signed, key=b"wrong").error_code == 401
    answer = client.exchange(Method.ALLOCATE, signed, key=client.key)
    assert answer.error_code == 420
    assert Attribute.MESSAGE_INTEGRITY in answer.attributes
    assert answer.attributes[UNKNOWN_ATTRIBUTES] == b"".join(
        kind.to_bytes(2, "big") for kind in dict.fromkeys(unknown)
    )


def test_indication_with_an_unknown_required_attribute_is_discarded() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    extra: list[tuple[int, bytes]]
    for extra in ([(0x7777, b"")], []):
        data: Attributes = [peer(PEER), (Attribute.DATA, b"%d" % len(extra)), *extra]
        client.transmit(message_encode(Method.SEND, Kind.INDICATION, data))
    assert [found for _, _, found in world.to_peers] == [b"0"]
    assert not client.arrived


def test_binding_asked_twice_is_answered_twice_alike() -> None:
    client = World().client()
    assert sent(client, BINDING) == sent(client, BINDING)


def test_binding_is_answered_whatever_credential_it_brings() -> None:
    client = World().client()
    for key in (b"", b"guess"):
        brought = [(Attribute.USERNAME, b"somebody"), (Attribute.REALM, b"elsewhere")]
        answer = client.exchange(Method.BINDING, brought, key=key)
        assert set(answer.attributes) == {Attribute.XOR_MAPPED_ADDRESS}


# --- What stands after the integrity, and its length ----------------------------------------------


@pytest.mark.parametrize(
    "smuggled", [peer(("8.8.4.4", 1)), (0x7777, b""), (Attribute.LIFETIME, b"")]
)
def test_nothing_between_the_two_integrity_attributes_counts(
    smuggled: tuple[int, bytes | tuple[str, int]],
) -> None:
    world = World()
    client = ModernClient(world, ("192.0.2.7", 40000), *credential_make(world.now))
    client.allocate()
    weaker = message_encode(
        Method.CREATE_PERMISSION, Kind.REQUEST, client.signed([peer(PEER)]), key=client.key
    )
    request = sealed_again(weaker, [smuggled], client.key)
    assert message_decode(sent(client, request)).kind is Kind.SUCCESS
    (allocation,) = world.started
    assert set(allocation.permissions) == {PEER[0]}


def sealed_again(message: bytes, extra: Attributes, key: bytes) -> bytes:
    """A message that ends in MESSAGE-INTEGRITY, with more behind it and -SHA256 at the end."""
    first = message_decode(message)
    attributes: Attributes = [*first.all, *extra]
    return message_encode(
        first.method,
        first.kind,
        attributes,
        transaction=first.transaction,
        key=key,
        sha256=True,
    )


def covered(client: FakeClient, length: int) -> bytes:
    """An Allocate whose MESSAGE-INTEGRITY-SHA256 is cut to `length` bytes, or filled up."""
    body = attributes_encode(client.signed([REQUESTED]), TRANSACTION)
    padded = length + -length % 4
    head = PAIR.pack(Method.ALLOCATE, len(body) + 4 + padded) + MAGIC_COOKIE + TRANSACTION
    digest = hmac.digest(client.key, head + body, "sha256")[:length].ljust(padded, b"\0")
    return head + body + PAIR.pack(Attribute.MESSAGE_INTEGRITY_SHA256, length) + digest


@pytest.mark.parametrize(
    ("length", "code"),
    [(32, 0), *((length, 401) for length in (16, 20, 24, 28))],
)
def test_truncated_integrity_is_read_and_matches_nothing(length: int, code: int) -> None:
    world = World()
    client = challenged(ModernClient(world, ("192.0.2.7", 40000), *credential_make(world.now)))
    assert message_decode(sent(client, covered(client, length))).error_code == code
    assert len(world.started) == (code == 0)


@pytest.mark.parametrize("length", [0, 4, 12, 15, 17, 31, 33, 36])
def test_integrity_of_a_length_that_there_is_not_gets_silence(length: int) -> None:
    world = World()
    client = challenged(ModernClient(world, ("192.0.2.7", 40000), *credential_make(world.now)))
    assert silent(client, covered(client, length))


# --- FINGERPRINT ----------------------------------------------------------------------------------


def test_wrong_or_early_fingerprint_gets_silence_and_none_is_needed() -> None:
    client = World().client()
    marked = fingerprinted(BINDING)
    assert message_decode(sent(client, marked)).kind is Kind.SUCCESS
    assert silent(client, marked[:-1] + bytes([marked[-1] ^ 1]))
    early = marked[:2] + b"\0\x10" + marked[4:20]
    value = fingerprint(early)
    early += PAIR.pack(Attribute.FINGERPRINT, 4) + value + attributes_encode([(SOFTWARE, b"late")])
    assert silent(client, early)
    long = marked[:2] + b"\0\x0c" + marked[4:20]
    long += PAIR.pack(Attribute.FINGERPRINT, 8) + fingerprint(long) + bytes(4)
    assert silent(client, long)


# --- ERROR-CODE -----------------------------------------------------------------------------------

CODES = [code for name, code in vars(error_codes).items() if isinstance(code, int)]


@pytest.mark.parametrize("code", CODES)
def test_error_code_is_class_and_number_and_at_most_127_characters(code: int) -> None:
    value = error_code_encode(code, explained=True)
    assert value[:2] == b"\0\0"
    assert 3 <= value[2] <= 6
    assert value[3] <= 99
    assert value[2] * 100 + value[3] == code
    assert 0 < len(value[4:].decode()) < 128
    assert error_code_encode(code) == value[:4]


def reason(answer: Message) -> str:
    return answer.attributes[ERROR_CODE][4:].decode()


def test_reason_is_told_to_whoever_surely_asked() -> None:
    world = World()
    client = world.client()
    assert reason(client.exchange(Method.ALLOCATE, [REQUESTED])) == ""
    assert reason(client.exchange(Method.BINDING, [(0x7777, b"")])) == ""
    client.transport = "tcp"
    assert reason(client.exchange(Method.ALLOCATE, [REQUESTED])) == "Unauthenticated"
    client.transport = "udp"
    challenged(client)
    answer = client.exchange(Method.REFRESH, client.signed([]), key=client.key)
    assert reason(answer) == "Allocation Mismatch"
    world.no_descriptors = True
    answer = client.exchange(Method.ALLOCATE, client.signed([REQUESTED]), key=client.key)
    assert reason(answer) == "Insufficient Capacity"


# --- Sizes ----------------------------------------------------------------------------------------


def test_answers_fit_a_path_of_unknown_mtu() -> None:
    changed: dict[str, object] = {
        "realm": "r" * 28,
        "relay_addresses": (RELAYED_HOST, RELAYED_HOST6),
        "third_party": replace(THIRD_PARTY, server_name="n" * 254),
    }
    world = World(settings_make(**changed))
    stranger = TokenClient(world, address=("192.0.2.9", 1))
    asked = message_encode(Method.ALLOCATE, Kind.REQUEST, [REQUESTED, (SOFTWARE, bytes(400))])
    challenge = sent(stranger, fingerprinted(asked))
    assert Attribute.THIRD_PARTY_AUTHORIZATION in message_decode(challenge).attributes
    assert Attribute.PASSWORD_ALGORITHMS in message_decode(challenge).attributes
    client = ModernClient(world, ("2a00:1450::9", 40000), *credential_make(world.now))
    client.challenge_take(message_decode(sent(client, asked)))
    most = [
        REQUESTED,
        (Attribute.ADDITIONAL_ADDRESS_FAMILY, IPV6),
        (Attribute.MOBILITY_TICKET, b""),
    ]
    request = message_encode(
        Method.ALLOCATE, Kind.REQUEST, client.signed(most), key=client.key, sha256=True
    )
    success = sent(client, fingerprinted(request))
    assert len(message_decode(success).addresses(Attribute.XOR_RELAYED_ADDRESS)) == 2
    unknown = [(kind, b"") for kind in range(0x7000, 0x7000 + (IPV4_MESSAGE_MAX - 20) // 4)]
    refusal = sent(client, message_encode(Method.BINDING, Kind.REQUEST, unknown))
    assert max(map(len, (challenge, success, refusal))) <= IPV4_MESSAGE_MAX


# --- RFC 3489 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_classic_request_gets_silence(transport: str) -> None:
    client = World().client()
    client.transport = transport
    assert silent(client, PAIR.pack(Method.BINDING, 0) + b"classic, 16 long")
