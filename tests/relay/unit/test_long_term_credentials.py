"""The long-term credential mechanism on the server, point by point: RFC 8489 section 9.2.4."""

from __future__ import annotations

import hmac
from dataclasses import replace

import pytest

from relay.core.nonce import COOKIE
from tests.relay.expectations import refused
from tests.relay.fake_link import START, FakeClient, World, credential_make, settings_make
from tests.relay.tokens import THIRD_PARTY
from tests.relay.unit.test_authentication import (
    BOTH_ALGORITHMS,
    MD5,
    REQUESTED,
    SHA256,
    ModernClient,
    userhash_of,
)
from tests.turn_client import (
    Attribute,
    Attributes,
    Kind,
    Method,
    long_term_key,
    message_decode,
    message_encode,
)

SOFTWARE = 0x8022
INTEGRITIES = {Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256}
NAMES = {Attribute.USERNAME, Attribute.USERHASH}
CHALLENGE = {Attribute.REALM, Attribute.NONCE}
OFFER = (Attribute.PASSWORD_ALGORITHMS, BOTH_ALGORITHMS)
CHOICE = (Attribute.PASSWORD_ALGORITHM, SHA256)
NONCE_LIFETIME = 600


def challenged(world: World, address: tuple[str, int] = ("192.0.2.7", 40000)) -> ModernClient:
    client = ModernClient(world, address, *credential_make(START))
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    return client


def asked(
    client: FakeClient, attributes: Attributes, *, key: bytes, sha256: bool, method: int = 3
) -> bytes:
    """The answer to a request."""
    client.transmit(message_encode(method, Kind.REQUEST, attributes, key=key, sha256=sha256))
    (answer,) = client.arrived
    client.arrived.clear()
    return answer


def parts(client: FakeClient) -> dict[int, bytes]:
    """USERNAME, REALM and NONCE."""
    return {
        Attribute.USERNAME: client.username.encode(),
        Attribute.REALM: client.realm,
        Attribute.NONCE: client.nonce,
    }


def key_of(client: FakeClient, digest: str = "md5") -> bytes:
    return long_term_key(client.username, client.realm.decode(), client.password, digest)


# --- What covers the answer -----------------------------------------------------------------------


def covers(key: bytes, answer: bytes, *, sha256: bool) -> bool:
    """Whether the integrity at the end of an answer is this key's."""
    size = 32 if sha256 else 20
    return hmac.digest(key, answer[: -size - 4], "sha256" if sha256 else "sha1") == answer[-size:]


@pytest.mark.parametrize("sha256", [False, True], ids=["sha1", "sha256"])
@pytest.mark.parametrize("named", [False, True], ids=["nothing named", "algorithms named"])
@pytest.mark.parametrize("method", [Method.ALLOCATE, Method.REFRESH], ids=["success", "error"])
def test_algorithms_and_not_the_integrity_of_the_request_say_what_covers_its_answer(
    sha256: bool, named: bool, method: Method
) -> None:
    client = challenged(World())
    key = key_of(client, "sha256" if named else "md5")
    algorithms = [OFFER, CHOICE] if named else []
    request = [REQUESTED, *parts(client).items(), *algorithms]
    answer = asked(client, request, key=key, sha256=sha256, method=method)
    attributes = set(message_decode(answer).attributes)
    integrity = Attribute.MESSAGE_INTEGRITY_SHA256 if named else Attribute.MESSAGE_INTEGRITY
    assert attributes & INTEGRITIES == {integrity}
    assert not attributes & (NAMES | CHALLENGE)
    assert covers(key, answer, sha256=named)
    assert message_decode(answer).error_code == (437 if method is Method.REFRESH else 0)
    answer = asked(client, request, key=key, sha256=sha256, method=Method.ALLOCATE)
    answer = asked(client, request, key=key, sha256=sha256, method=Method.REFRESH)
    assert message_decode(answer).kind is Kind.SUCCESS  # of who holds an allocation
    assert set(message_decode(answer).attributes) & INTEGRITIES == {integrity}
    assert covers(key, answer, sha256=named)


@pytest.mark.parametrize(("stronger", "code"), [(b"", 0), (b"right", 0), (b"wrong", 401)])
def test_of_two_integrity_attributes_the_stronger_one_is_checked(
    stronger: bytes, code: int
) -> None:
    client = challenged(World())
    request = message_encode(
        Method.ALLOCATE, Kind.REQUEST, client.signed([REQUESTED]), key=client.key
    )
    if stronger:
        first = message_decode(request)
        key = client.key if stronger == b"right" else b"wrong"
        request = message_encode(
            first.method,
            first.kind,
            first.all,
            transaction=first.transaction,
            key=key,
            sha256=True,
        )
    client.transmit(request)
    assert message_decode(client.arrived.popleft()).error_code == code


# --- Refusals, in their order ---------------------------------------------------------------------


def test_strongest_algorithm_is_offered_first() -> None:
    answer = World().client().exchange(Method.ALLOCATE, [REQUESTED])
    assert answer.attributes[Attribute.PASSWORD_ALGORITHMS] == SHA256 + MD5


def test_challenge_says_what_it_must_and_no_more() -> None:
    answer = World().client().exchange(Method.ALLOCATE, [REQUESTED])
    assert set(answer.attributes) == {
        Attribute.ERROR_CODE,
        *CHALLENGE,
        Attribute.PASSWORD_ALGORITHMS,
    }
    assert answer.attributes[Attribute.NONCE].startswith(b"obMatJos2AAAB")
    assert len(answer.attributes[Attribute.NONCE]) < 128


@pytest.mark.parametrize("missing", [(Attribute.USERNAME,), (Attribute.REALM,), (Attribute.NONCE,)])
@pytest.mark.parametrize("sha256", [False, True])
def test_request_that_lacks_a_part_is_told_400_and_nothing_else(
    missing: tuple[Attribute], sha256: bool
) -> None:
    client = challenged(World())
    rest = [part for part in parts(client).items() if part[0] not in missing]
    answer = message_decode(asked(client, [REQUESTED, *rest], key=client.key, sha256=sha256))
    assert answer.error_code == 400
    assert set(answer.attributes) == {Attribute.ERROR_CODE}


def refusals(client: ModernClient, nonce: bytes) -> dict[str, bytes]:
    """What a request of a good form is told, by what is wrong with it."""
    good = {**parts(client), Attribute.NONCE: nonce}
    wrong: dict[str, tuple[dict[int, bytes], bytes]] = {
        "username": ({**good, Attribute.USERNAME: b"somebody"}, client.key),
        "password": (good, b"guess"),
    }
    told = {
        name: asked(client, [REQUESTED, *values.items(), OFFER, CHOICE], key=key, sha256=True)
        for name, (values, key) in wrong.items()
    }
    hashed = {kind: value for kind, value in good.items() if kind != Attribute.USERNAME}
    hashed[Attribute.USERHASH] = userhash_of("somebody", "turn")
    request = [REQUESTED, *hashed.items(), OFFER, CHOICE]
    return {**told, "userhash": asked(client, request, key=client.key, sha256=True)}


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("wrong", ["username", "userhash", "password"])
def test_wrong_credential_is_401_with_a_challenge_before_the_nonce_is_looked_at(
    wrong: str, stale: bool
) -> None:
    world = World(settings_make(nonce_lifetime_seconds=NONCE_LIFETIME))
    client = challenged(world)
    world.pass_seconds(NONCE_LIFETIME + 128 if stale else 0)
    answer = message_decode(refusals(client, client.nonce)[wrong])
    assert answer.error_code == 401
    assert set(answer.attributes) == {
        Attribute.ERROR_CODE,
        *CHALLENGE,
        Attribute.PASSWORD_ALGORITHMS,
    }


@pytest.mark.parametrize("nonce", ["old", "of another address", "without its cookie", "junk"])
def test_nonce_that_is_not_good_is_438_with_one_that_is(nonce: str) -> None:
    world = World(settings_make(nonce_lifetime_seconds=NONCE_LIFETIME))
    client = challenged(world)
    client.chosen = MD5
    nonces = {
        "old": client.nonce,
        "of another address": challenged(world, ("192.0.2.7", 40001)).nonce,
        "without its cookie": client.nonce[len(COOKIE) + 4 :],
        "junk": b"\0",
    }
    world.pass_seconds(NONCE_LIFETIME + 128 if nonce == "old" else 0)
    request: Attributes = [
        REQUESTED,
        *{**parts(client), Attribute.NONCE: nonces[nonce]}.items(),
    ]
    answer = message_decode(asked(client, request, key=key_of(client), sha256=False))
    assert answer.error_code == 438
    assert set(answer.attributes) == {
        Attribute.ERROR_CODE,
        *CHALLENGE,
        Attribute.PASSWORD_ALGORITHMS,
    }
    client.challenge_take(answer)
    client.allocate()


def test_two_addresses_and_two_ports_never_get_one_nonce() -> None:
    world = World()
    clients = [("192.0.2.7", 1), ("192.0.2.7", 2), ("192.0.2.8", 1), ("2a00:1450::9", 1)]
    nonces = {challenged(world, address).nonce for address in clients}
    assert len(nonces) == len(clients)


def test_faults_are_named_in_the_order_of_the_rfc() -> None:
    client = challenged(World())
    everything = parts(client)
    lacking = {kind: value for kind, value in everything.items() if kind != Attribute.REALM}
    bid_down = (Attribute.PASSWORD_ALGORITHMS, MD5)
    for values, algorithms, key, code in (
        (everything, [bid_down, CHOICE], b"", 401),  # without integrity nothing else is looked at
        (lacking, [OFFER, CHOICE], b"wrong", 400),
        (everything, [bid_down, CHOICE], b"wrong", 400),
        ({**everything, Attribute.NONCE: b"another"}, [], b"wrong", 401),
        ({**everything, Attribute.NONCE: b"another"}, [], key_of(client), 438),
        (everything, [OFFER, CHOICE], client.key, 0),
    ):
        answer = asked(client, [REQUESTED, *values.items(), *algorithms], key=key, sha256=True)
        assert message_decode(answer).error_code == code


# --- Where tokens are accepted, too ---------------------------------------------------------------


@pytest.mark.parametrize("code", [401, 438])
def test_whoever_has_tried_is_told_the_algorithms_however_long_our_name(code: int) -> None:
    names_told = set()
    for length in range(1, 254, 4):
        third_party = replace(THIRD_PARTY, server_name="n" * length)
        client = challenged(World(settings_make(third_party=third_party)))
        wrong = {401: (Attribute.USERNAME, b"x"), 438: (Attribute.NONCE, b"")}[code]
        request = [*{**parts(client), wrong[0]: wrong[1]}.items()]
        answer = asked(client, request, key=key_of(client), sha256=False)
        told = message_decode(answer)
        assert told.error_code == code
        assert told.attributes[Attribute.PASSWORD_ALGORITHMS] == BOTH_ALGORITHMS
        assert told.attributes[Attribute.NONCE].startswith(COOKIE)
        assert len(answer) <= 2.8 * client.sent[-1]
        names_told.add(Attribute.THIRD_PARTY_AUTHORIZATION in told.attributes)
    assert names_told == {True, False}


@pytest.mark.parametrize("realm", ["t", "turn", "turn.example.org", "r" * 28])
def test_challenge_is_at_most_2_8_times_any_request(realm: str) -> None:
    world = World(settings_make(realm=realm))
    requests: list[Attributes] = [[], [(SOFTWARE, b"")], [REQUESTED]]
    requests += [[REQUESTED, (SOFTWARE, bytes(length))] for length in range(60)]
    for attributes in requests:
        client = world.client()
        client.transmit(message_encode(Method.ALLOCATE, Kind.REQUEST, attributes))
        answers = [len(datagram) for datagram in client.arrived]
        assert all(length <= 2.8 * client.sent[-1] for length in answers), attributes
        assert answers or client.sent[-1] < 28  # whoever allocates gets his challenge


def test_bare_header_alone_gets_a_nonce_without_its_cookie() -> None:
    client = World().client()
    nonce = client.exchange(Method.ALLOCATE).attributes[Attribute.NONCE]
    assert not nonce.startswith(COOKIE)
    client.nonce, client.realm, client.key = nonce, b"turn", key_of_turn(client)
    client.allocate()
    with refused(437):
        client.allocate()


def key_of_turn(client: FakeClient) -> bytes:
    return long_term_key(client.username, "turn", client.password)
