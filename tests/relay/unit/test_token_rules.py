"""What RFC 7635 asks of a server, rule by rule: sections 5, 6.1, 7 and 9, appendix B."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.access_tokens import TokenKey
from relay.core.limits import ProjectLimits
from tests.relay.expectations import refused
from tests.relay.fake_link import PEER, START
from tests.relay.tokens import KEY_OF_OTHERS, THIRD_PARTY, TokenClient, token_make, world_make
from tests.turn_client import (
    UDP_PROTOCOL,
    Attribute,
    Attributes,
    Kind,
    Method,
    TurnError,
    message_decode,
    message_encode,
)

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
LONG_MAC_KEY = b"a mac_key of 256 bits, in bytes:"
SOFTWARE, UNKNOWN = 0x8022, 0x7777


def asked(client: TokenClient, method: Method, attributes: Attributes) -> bytes:
    """The answer to a request that is covered with the client's mac_key, in bytes."""
    if not client.nonce:
        client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    client.method = method
    signed = client.signed(attributes)
    client.transmit(
        message_encode(method, Kind.REQUEST, signed, key=client.key, sha256=client.sha256)
    )
    return client.datagram_receive()


def is_covered(answer: bytes, key: bytes, *, sha256: bool = False) -> bool:
    """Whether the last attribute is an integrity attribute under this key."""
    length, digest = (32, "sha256") if sha256 else (20, "sha1")
    return hmac.digest(key, answer[: -length - 4], digest) == answer[-length:]


# --- 4, 6.1: the challenge ------------------------------------------------------------------------


def test_challenge_tells_what_a_client_needs_and_not_what_software_this_is() -> None:
    client = TokenClient(world_make())
    answer = client.exchange(Method.ALLOCATE, [REQUESTED, (Attribute.LIFETIME, bytes(4))])
    assert answer.error_code == 401
    assert answer.attributes.keys() == {
        Attribute.ERROR_CODE,
        Attribute.REALM,
        Attribute.NONCE,
        Attribute.PASSWORD_ALGORITHMS,
        Attribute.THIRD_PARTY_AUTHORIZATION,
    }
    assert SOFTWARE not in answer.attributes


@pytest.mark.parametrize("transport", ["tcp", "tls", "dtls"])
def test_challenge_over_a_connection_always_names_this_server(transport: str) -> None:
    client = TokenClient(world_make())
    client.transport = transport
    for method in (Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION):
        answer = client.exchange(method)
        assert answer.error_code == 401
        assert Attribute.THIRD_PARTY_AUTHORIZATION in answer.attributes


# --- 5, 6.2: what covers a request ----------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [hashlib.sha1(LONG_MAC_KEY).digest(), LONG_MAC_KEY, LONG_MAC_KEY[:16]],
    ids=["its SHA-1", "all of it", "16 bytes of it"],
)
def test_client_of_a_longer_mac_key_may_know_sha1_only(key: bytes) -> None:
    world = world_make()
    token = token_make(world.now, mac_key=LONG_MAC_KEY)
    client = TokenClient(world, token, mac_key=key)
    answer = asked(client, Method.ALLOCATE, [REQUESTED])
    assert message_decode(answer).kind is Kind.SUCCESS
    assert is_covered(answer, key)
    client.permit(PEER)
    assert client.refresh(600) == 600


def test_mac_key_for_sha256_is_used_as_it_is() -> None:
    world = world_make()
    token = token_make(world.now, mac_key=LONG_MAC_KEY)
    client = TokenClient(world, token, mac_key=LONG_MAC_KEY)
    client.sha256 = True
    answer = asked(client, Method.ALLOCATE, [REQUESTED])
    assert message_decode(answer).kind is Kind.SUCCESS
    assert is_covered(answer, LONG_MAC_KEY, sha256=True)
    for wrong in (hashlib.sha1(LONG_MAC_KEY).digest(), LONG_MAC_KEY[:16], LONG_MAC_KEY[:20]):
        other = TokenClient(world, token, mac_key=wrong, address=("192.0.2.8", 1))
        other.sha256 = True
        with refused(401):
            other.allocate()


def test_token_behind_the_integrity_is_not_there() -> None:
    client = TokenClient(world_make())
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    client.method = Method.BINDING  # signs without the token
    token = message_encode(Method.ALLOCATE, Kind.REQUEST, [(Attribute.ACCESS_TOKEN, client.token)])
    body = token[20:]
    plain = message_encode(
        Method.ALLOCATE, Kind.REQUEST, client.signed([REQUESTED]), key=client.key
    )
    length = int.from_bytes(plain[2:4], "big") + len(body)
    client.transmit(plain[:2] + length.to_bytes(2, "big") + plain[4:] + body)
    assert message_decode(client.datagram_receive()).error_code == 401


def test_mac_key_is_in_no_answer() -> None:
    class Listener(TokenClient):
        heard = b""

        def datagram_receive(self) -> bytes:
            datagram = super().datagram_receive()
            self.heard += datagram
            return datagram

    world = world_make()
    client = Listener(world)
    client.allocate()
    client.permit(PEER)
    client.bind(0x4000, PEER)
    with refused(443):
        client.request(Method.REFRESH, [(Attribute.REQUESTED_ADDRESS_FAMILY, b"\2\0\0\0")])
    client.refresh(0)
    assert len(client.heard) > 300
    assert client.mac_key[:16] not in client.heard


# --- 7: what is checked ---------------------------------------------------------------------------


def test_key_id_may_be_base64() -> None:
    key = TokenKey("22B+jxU93h/IgwE=", "prj_a", b"k" * 32)
    world = world_make(third_party=replace(THIRD_PARTY, keys=(*THIRD_PARTY.keys, key)))
    client = TokenClient(world, token_make(world.now, key=key), kid=key.kid)
    client.allocate()
    client.permit(PEER)
    assert [(found.owner, found.kid) for found in world.started] == [("prj_a", key.kid)]
    with refused(437):
        TokenClient(world, client.token, kid=key.kid, address=("192.0.2.8", 1)).refresh(600)
    assert [found.code for found in world.refusals_explain(key.kid, world.now, "prj_a")] == [437]


@pytest.mark.parametrize("missing", [Attribute.USERNAME, Attribute.REALM, Attribute.NONCE])
def test_token_without_a_part_of_the_credential_is_a_bad_request(missing: Attribute) -> None:
    client = TokenClient(world_make())
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    client.method = Method.ALLOCATE
    signed = [pair for pair in client.signed([REQUESTED]) if pair[0] != missing]
    assert client.exchange(Method.ALLOCATE, signed, key=client.key).error_code == 400


def test_token_without_integrity_is_challenged() -> None:
    world = world_make()
    client = TokenClient(world)
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    client.method = Method.ALLOCATE
    answer = client.exchange(Method.ALLOCATE, client.signed([REQUESTED]))
    assert answer.error_code == 401
    assert not world.started


def test_token_is_no_help_to_who_has_another_address_nonce() -> None:
    world = world_make()
    client = TokenClient(world)
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    thief = TokenClient(world, client.token, address=("203.0.113.9", 1))
    thief.realm, thief.nonce, thief.key = client.realm, client.nonce, client.key
    answer = message_decode(asked(thief, Method.ALLOCATE, [REQUESTED]))
    assert answer.error_code == 438
    assert not world.started


@pytest.mark.parametrize(
    ("age_seconds", "code"),
    [(0, 0), (600, 0), (604.5, 0), (605, 401), (-604.5, 0), (-605, 401)],
)
def test_clocks_may_differ_by_less_than_the_lifetime_and_five_seconds(
    age_seconds: float, code: int
) -> None:
    client = TokenClient(world_make(), token_make(START - age_seconds, lifetime_seconds=600))
    answer = message_decode(asked(client, Method.ALLOCATE, [REQUESTED]))
    assert answer.error_code == code


def test_answer_is_covered_with_the_mac_key() -> None:
    client = TokenClient(world_make())
    for method, attributes in ((Method.ALLOCATE, [REQUESTED]), (Method.REFRESH, [])):
        answer = asked(client, method, attributes)
        assert message_decode(answer).kind is Kind.SUCCESS
        assert is_covered(answer, client.mac_key)


@pytest.mark.parametrize("sha256", [False, True])
@pytest.mark.parametrize(
    ("method", "attributes", "code"),
    [
        (Method.ALLOCATE, [(Attribute.REQUESTED_TRANSPORT, b"\x63\0\0\0")], 442),
        (Method.ALLOCATE, [REQUESTED], 486),
        (Method.ALLOCATE, [REQUESTED, (UNKNOWN, b"")], 420),
        (Method.ALLOCATE, [], 400),
        (Method.REFRESH, [], 437),
        (Method.CREATE_PERMISSION, [(Attribute.XOR_PEER_ADDRESS, PEER)], 437),
    ],
)
def test_errors_too_are_covered_with_the_mac_key(
    method: Method, attributes: Attributes, code: int, sha256: bool
) -> None:
    world = world_make(project_limits=ProjectLimits(allocations_max=0))
    client = TokenClient(world)
    client.is_always_shown, client.sha256 = True, sha256
    answer = asked(client, method, attributes)
    assert message_decode(answer).error_code == code
    assert is_covered(answer, client.mac_key, sha256=sha256)


def test_error_for_a_token_that_takes_no_place_is_covered_with_its_own_mac_key() -> None:
    world = world_make()
    client = TokenClient(world)
    client.allocate()
    mac_key = b"o" * 20
    other = token_make(world.now, key=KEY_OF_OTHERS, mac_key=mac_key)
    client.token_take(other, kid=KEY_OF_OTHERS.kid, mac_key=mac_key)
    answer = asked(client, Method.REFRESH, [])
    assert message_decode(answer).error_code == 441
    assert is_covered(answer, mac_key)


# --- 9: lifetimes ---------------------------------------------------------------------------------


def test_token_that_does_not_last_is_refused() -> None:
    world = world_make()
    with refused(401):
        TokenClient(world, token_make(world.now, lifetime_seconds=0)).allocate()
    assert not world.started
    TokenClient(world, token_make(world.now, lifetime_seconds=1)).allocate()
    assert len(world.started) == 1


@example(age=0, lifetime=1, asked_for=600, later=0)
@example(age=604, lifetime=600, asked_for=600, later=0)
@example(age=-300, lifetime=600, asked_for=4000, later=300)
@given(
    age=st.integers(-700, 700),
    lifetime=st.integers(0, 700),
    asked_for=st.integers(1, 4000),
    later=st.integers(0, 300),
)
def test_no_lifetime_that_is_told_goes_beyond_the_token(
    age: int, lifetime: int, asked_for: int, later: int
) -> None:
    world = world_make()
    client = TokenClient(world, token_make(world.now - age, lifetime_seconds=lifetime))
    wanted = (Attribute.LIFETIME, asked_for.to_bytes(4, "big"))
    for method, attributes in (
        (Method.ALLOCATE, [REQUESTED, wanted]),
        (Method.REFRESH, [wanted]),
    ):
        try:
            answer = client.request(method, attributes)
        except TurnError as error:
            assert error.code in (401, 437)
            return
        told = int.from_bytes(answer.attributes[Attribute.LIFETIME], "big")
        left = lifetime + 5 - abs(world.now - (START - age))
        assert 0 < told <= min(lifetime, left)
        world.pass_seconds(later)
