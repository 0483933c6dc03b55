"""Third-party authorization: RFC 7635 sections 5, 7 and 9."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import nonce
from relay.core.access_tokens import TokenKey, token_credential
from relay.core.addresses import SockAddress
from relay.core.limits import OnExpiry, ProjectLimits
from relay.sealing import gcm_open, gcm_seal
from tests.relay.expectations import refused
from tests.relay.fake_link import PEER, START, World
from tests.relay.tokens import (
    KEY,
    KEY_OF_OTHERS,
    NEXT_KEY,
    SERVER_NAME,
    SHORT_KEY,
    THIRD_PARTY,
    TokenClient,
    token_make,
    world_make,
)
from tests.turn_client import (
    UDP_PROTOCOL,
    Attribute,
    Kind,
    Method,
    TurnError,
    message_encode,
)

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)


def lifetime_told(client: TokenClient, method: Method = Method.ALLOCATE) -> int:
    attributes = [REQUESTED] if method == Method.ALLOCATE else []
    answer = client.request(method, [*attributes, (Attribute.LIFETIME, (3600).to_bytes(4, "big"))])
    return int.from_bytes(answer.attributes[Attribute.LIFETIME], "big")


# --- the challenge --------------------------------------------------------------------------------


def test_challenge_names_this_server() -> None:
    answer = TokenClient(world_make()).exchange(
        Method.ALLOCATE, [REQUESTED, (Attribute.LIFETIME, bytes(4))]
    )
    assert answer.error_code == 401
    assert answer.attributes[Attribute.THIRD_PARTY_AUTHORIZATION] == SERVER_NAME.encode()


def test_challenge_names_nothing_where_there_is_no_third_party() -> None:
    answer = World().client().exchange(Method.ALLOCATE, [REQUESTED])
    assert Attribute.THIRD_PARTY_AUTHORIZATION not in answer.attributes


@pytest.mark.parametrize("padding", range(0, 80, 4))
@pytest.mark.parametrize("name", ["turn", SERVER_NAME, "turn.a-long-name.example.org"])
def test_challenge_over_udp_is_at_most_2_8_times_the_request(name: str, padding: int) -> None:
    client = TokenClient(world_make(third_party=replace(THIRD_PARTY, server_name=name)))
    software = [(0x8022, bytes(padding))] if padding else []
    client.exchange(Method.ALLOCATE, [REQUESTED, *software])
    assert client.received[0] <= 2.8 * client.sent[0]


def test_smallest_allocate_is_told_the_name_in_the_place_of_the_algorithms() -> None:
    client = TokenClient(world_make())
    answer = client.exchange(Method.ALLOCATE, [REQUESTED])
    assert (client.sent, client.received) == ([28], [72])
    assert Attribute.THIRD_PARTY_AUTHORIZATION in answer.attributes
    assert Attribute.PASSWORD_ALGORITHMS not in answer.attributes
    assert len(answer.attributes[Attribute.NONCE]) == 11


def test_who_cannot_be_anybody_else_is_told_everything() -> None:
    client = TokenClient(world_make(third_party=replace(THIRD_PARTY, server_name="a" * 200)))
    client.transport = "tcp"
    answer = client.exchange(Method.ALLOCATE, [REQUESTED])
    assert Attribute.THIRD_PARTY_AUTHORIZATION in answer.attributes
    assert Attribute.PASSWORD_ALGORITHMS in answer.attributes


def test_stale_nonce_is_answered_with_the_name_too() -> None:
    world = world_make()
    client = TokenClient(world)
    client.allocate()
    world.pass_seconds(3599)
    client.token_take(token_make(world.now))
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    world.pass_seconds(3700)
    client.token_take(token_make(world.now))
    answer = client.exchange(Method.ALLOCATE, client.signed([REQUESTED]), key=client.key)
    assert answer.error_code == 438
    assert answer.attributes[Attribute.THIRD_PARTY_AUTHORIZATION] == SERVER_NAME.encode()


# --- good tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("sha256", "length"), [(False, 20), (True, 32), (True, 20)])
@pytest.mark.parametrize("key", [KEY, NEXT_KEY, SHORT_KEY], ids=lambda key: key.kid)
def test_token_allocates_refreshes_permits_and_binds(
    key: TokenKey, sha256: bool, length: int
) -> None:
    world = world_make()
    mac_key = b"s" * length
    token = token_make(world.now, key=key, mac_key=mac_key)
    client = TokenClient(world, token, kid=key.kid, mac_key=mac_key)
    client.sha256 = sha256
    answer = client.request(Method.ALLOCATE, [REQUESTED])
    integrity = Attribute.MESSAGE_INTEGRITY_SHA256 if sha256 else Attribute.MESSAGE_INTEGRITY
    assert integrity in answer.attributes
    client.permit(PEER)
    client.bind(0x4000, PEER)
    assert client.refresh(600) == 600
    assert client.refresh(0) == 0
    assert [allocation.owner for allocation in world.started] == ["prj_a"]
    assert world.events == [("accepted", "prj_a")]


def test_token_is_good_for_many_allocations() -> None:
    world = world_make()
    token = token_make(world.now)
    clients = [TokenClient(world, token, address=("192.0.2.7", port)) for port in range(1000, 1005)]
    for client in clients:
        client.allocate()
    assert len(world.started) == 5
    assert {allocation.credential for allocation in world.started} == {token_credential(token)}


def test_passwords_are_taken_beside_tokens() -> None:
    world = world_make()
    world.client().allocate()
    TokenClient(world, address=("192.0.2.8", 1)).allocate()
    assert [allocation.kid for allocation in world.started] == ["", KEY.kid]


def test_key_id_may_be_sent_as_userhash() -> None:
    class Anonymous(TokenClient):
        def credential_attributes(self) -> list[tuple[int, bytes]]:
            hashed = hashlib.sha256(f"{self.username}:{self.realm.decode()}".encode()).digest()
            return [(Attribute.USERHASH, hashed), *super().credential_attributes()[1:]]

    client = Anonymous(world_make())
    client.allocate()
    client.permit(PEER)


# --- tokens that are not good ---------------------------------------------------------------------


def bad_tokens(now: float) -> dict[str, tuple[str, bytes]]:
    """Key id and token, by what is wrong."""
    good = token_make(now)
    return {
        "unknown key id": ("nobody", good),
        "another key's id": (NEXT_KEY.kid, good),
        "another project's key id": (KEY_OF_OTHERS.kid, good),
        "another server": (KEY.kid, token_make(now, server_name="turn.example.com")),
        "tampered": (KEY.kid, good[:-1] + bytes([good[-1] ^ 1])),
        "cut": (KEY.kid, good[:-1]),
        "empty": (KEY.kid, b""),
        "sealed with no key": (KEY.kid, token_make(now, key=KEY._replace(key=bytes(32)))),
        "no key id, sealed with no key": (
            "nobody",
            token_make(now, key=KEY._replace(key=bytes(32))),
        ),
        "over": (KEY.kid, token_make(now - 3606)),
        "from the future": (KEY.kid, token_make(now + 3606)),
        "lasts too long": (KEY.kid, token_make(now, lifetime_seconds=31 * 24 * 3600)),
        "lasts for ever": (KEY.kid, token_make(now, lifetime_seconds=2**32 - 1)),
    }


@pytest.mark.parametrize("wrong", bad_tokens(START))
def test_token_that_is_not_good_is_401(wrong: str) -> None:
    world = world_make()
    kid, token = bad_tokens(world.now)[wrong]
    with refused(401):
        TokenClient(world, token, kid=kid).allocate()
    assert not world.started


@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda junk: b"\0\x0c" + junk))
)
def test_junk_for_a_token_is_401(junk: bytes) -> None:
    with refused(401):
        TokenClient(world_make(), junk).allocate()


@given(st.binary(max_size=100))
def test_junk_under_the_right_key_is_401(content: bytes) -> None:
    sealed = gcm_seal(KEY.key, b"n" * 12, content, SERVER_NAME.encode())
    with refused(401):
        TokenClient(world_make(), b"\0\x0c" + b"n" * 12 + sealed).allocate()


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1))
def test_whatever_time_a_token_names_it_is_let_in_or_401(issued_at: int, lifetime: int) -> None:
    world = world_make()
    token = token_make(issued_at, lifetime_seconds=lifetime)
    with suppress(TurnError):
        TokenClient(world, token).allocate()
    live = lifetime > 0 and abs(world.now - issued_at) < lifetime + 5
    soon_over = issued_at + lifetime < world.now + 30 * 24 * 3600 + 295
    assert bool(world.started) is (live and soon_over)


def test_forged_integrity_is_401() -> None:
    with refused(401):
        TokenClient(world_make(), mac_key=b"guess" * 4).allocate()


@pytest.mark.replaces_parts
def test_whoever_is_refused_costs_the_same_work_and_gets_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: Counter[str] = Counter()
    digest, nonce_mac = hmac.digest, nonce._mac

    def nonce_counted(key: bytes, prefix: bytes, units: int, client: SockAddress) -> bytes:
        calls["nonce"] += 1
        return nonce_mac(key, prefix, units, client)

    def digest_counted(key: bytes, message: bytes, name: str) -> bytes:
        calls[name] += 1
        return digest(key, message, name)

    def opened(key: bytes, number: bytes, sealed: bytes, associated: bytes) -> bytes | None:
        calls["open"] += 1
        return gcm_open(key, number, sealed, associated)

    world = world_make(third_party=replace(THIRD_PARTY, gcm_open=opened))
    wrong = bad_tokens(world.now)
    answers, work = set(), []
    monkeypatch.setattr(hmac, "digest", digest_counted)
    monkeypatch.setattr(nonce, "_mac", nonce_counted)
    for name in (
        "unknown key id",
        "another key's id",
        "another server",
        "tampered",
        "forged",
        "over",
    ):
        client = TokenClient(world)
        client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
        kid, token = wrong.get(name, (KEY.kid, client.token))
        client.token_take(token, kid=kid, mac_key=b"g" * 20 if name == "forged" else client.mac_key)
        client.method = Method.ALLOCATE
        datagram = message_encode(
            Method.ALLOCATE,
            Kind.REQUEST,
            client.signed([REQUESTED]),
            transaction=b"t" * 12,
            key=client.key,
        )
        calls.clear()
        client.transmit(datagram)
        answers.add(client.datagram_receive())
        work.append(dict(calls))
    assert len(answers) == 1
    assert work[0] == {"open": 1, "sha1": 3, "nonce": 2}
    assert all(done == work[0] for done in work)


@pytest.mark.parametrize("method", [Method.ALLOCATE, Method.REFRESH])
def test_token_that_nobody_asked_for_is_420(method: Method) -> None:
    client = TokenClient(World())
    client.is_always_shown = True
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    answer = client.exchange(method, client.signed([REQUESTED]), key=client.key)
    assert answer.error_code == 420
    assert answer.attributes[0x000A] == b"\x00\x1b"


def test_token_in_a_binding_request_is_420() -> None:
    client = TokenClient(world_make())
    answer = client.exchange(Method.BINDING, [(Attribute.ACCESS_TOKEN, client.token)])
    assert answer.error_code == 420


def test_username_under_which_a_token_is_kept_opens_nothing() -> None:
    world = world_make()
    TokenClient(world).allocate()
    kept = world.started[0].username
    for password in ("", "None"):
        thief = world.client(credential=(kept, password))
        with refused(401):
            thief.refresh(0)
    assert len(world.open_ports) == 1


def test_key_id_without_a_token_makes_no_allocation() -> None:
    client = TokenClient(world_make())
    client.method = Method.BINDING
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    answer = client.exchange(Method.ALLOCATE, client.signed([REQUESTED]), key=client.key)
    assert answer.error_code == 401


# --- keys that change -----------------------------------------------------------------------------


def test_key_that_is_taken_away_lets_nothing_new_in_and_its_call_goes_on() -> None:
    world = world_make()
    client = TokenClient(world)
    client.allocate()
    fewer = replace(THIRD_PARTY, keys=(NEXT_KEY, KEY_OF_OTHERS))
    world.turn.settings_replace(replace(world.turn.settings, third_party=fewer))
    client.permit(PEER)
    with refused(401):
        TokenClient(world, client.token, address=("192.0.2.8", 1)).allocate()
    client.token_take(token_make(world.now + 1, key=NEXT_KEY), kid=NEXT_KEY.kid)
    assert client.refresh(600) == 600


def test_tokens_are_switched_on_and_off_while_the_relay_runs() -> None:
    world = World()
    on = replace(world.turn.settings, third_party=THIRD_PARTY)
    off = world.turn.settings
    world.turn.settings_replace(on)
    TokenClient(world).allocate()
    world.turn.settings_replace(off)
    with refused(420):
        TokenClient(world, address=("192.0.2.8", 1)).request(
            Method.ALLOCATE, [REQUESTED, (Attribute.ACCESS_TOKEN, b"")]
        )


# --- time -----------------------------------------------------------------------------------------


def test_lifetime_ends_with_the_token() -> None:
    world = world_make()
    client = TokenClient(world, token_make(world.now - 3000))
    assert lifetime_told(client) == 605
    world.pass_seconds(300)
    assert lifetime_told(client, Method.REFRESH) == 305
    world.pass_seconds(304)
    assert len(world.open_ports) == 1
    world.pass_seconds(1)
    assert not world.open_ports
    assert len(world.ended) == 1


@pytest.mark.parametrize("on_expiry", OnExpiry)
def test_no_call_outlives_its_token_whatever_the_project_says(on_expiry: OnExpiry) -> None:
    world = world_make(project_limits=ProjectLimits(on_expiry=on_expiry))
    TokenClient(world, token_make(world.now, lifetime_seconds=100)).allocate()
    world.pass_seconds(106)
    assert not world.open_ports


def test_new_token_takes_the_place_of_the_old_one() -> None:
    world = world_make()
    client = TokenClient(world, token_make(world.now - 3000))
    client.allocate()
    renewed = token_make(world.now, key=NEXT_KEY, mac_key=b"w" * 20)
    client.token_take(renewed, kid=NEXT_KEY.kid, mac_key=b"w" * 20)
    assert lifetime_told(client, Method.REFRESH) == 3600
    client.permit(PEER)
    (allocation,) = world.open_ports.values()
    assert (allocation.kid, allocation.credential) == (NEXT_KEY.kid, token_credential(renewed))
    world.pass_seconds(3000)
    assert world.open_ports


def test_old_token_is_another_user_once_a_new_one_took_its_place() -> None:
    world = world_make()
    old = token_make(world.now)
    client = TokenClient(world, old)
    client.allocate()
    client.token_take(token_make(world.now + 1, mac_key=b"w" * 20), mac_key=b"w" * 20)
    client.refresh(600)
    client.token_take(old)
    with refused(401):
        client.permit(PEER)


@pytest.mark.parametrize("method", [Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_new_token_is_taken_by_refresh_alone(method: Method) -> None:
    world = world_make()
    client = TokenClient(world)
    client.allocate()
    client.token_take(token_make(world.now))
    client.is_always_shown = True
    with refused(441):
        client.request(method, [(Attribute.CHANNEL_NUMBER, b"\x40\0\0\0"), (0x0012, PEER)])


def test_token_of_another_project_takes_no_place() -> None:
    world = world_make()
    client = TokenClient(world)
    client.allocate()
    client.token_take(token_make(world.now, key=KEY_OF_OTHERS), kid=KEY_OF_OTHERS.kid)
    with refused(441):
        client.refresh(600)


def test_neither_a_password_nor_a_token_takes_the_others_place() -> None:
    world = world_make()
    password, token = world.client(), TokenClient(world, address=("192.0.2.8", 1))
    password.allocate()
    token.allocate()
    with refused(441):
        TokenClient(world, address=password.address).refresh(600)
    with refused(441):
        world.client(token.address).refresh(600)


def test_call_moves_with_its_token_and_with_no_other() -> None:
    world = world_make()
    client = TokenClient(world)
    answer = client.request(Method.ALLOCATE, [REQUESTED, (Attribute.MOBILITY_TICKET, b"")])
    ticket = (Attribute.MOBILITY_TICKET, answer.attributes[Attribute.MOBILITY_TICKET])
    thief = TokenClient(world, token_make(world.now), address=("203.0.113.9", 1))
    with refused(441):
        thief.request(Method.REFRESH, [ticket])
    moved = TokenClient(world, client.token, address=("203.0.113.5", 1))
    moved.request(Method.REFRESH, [ticket])
    moved.permit(PEER)
    assert world.moved == [client.address]


# --- a token is a credential of its project -------------------------------------------------------


def test_tokens_count_in_their_projects_quota() -> None:
    world = world_make(project_limits=ProjectLimits(allocations_max=2))
    world.client().allocate()
    TokenClient(world, address=("192.0.2.8", 1)).allocate()
    with refused(486):
        TokenClient(world, address=("192.0.2.8", 2)).allocate()
    token = token_make(world.now, key=KEY_OF_OTHERS)
    TokenClient(world, token, kid=KEY_OF_OTHERS.kid, address=("192.0.2.8", 3)).allocate()


@pytest.mark.parametrize("on_expiry", OnExpiry)
def test_revoked_token_ends_its_call_unless_the_project_drains_and_lets_nothing_new_in(
    on_expiry: OnExpiry,
) -> None:
    world = world_make(project_limits=ProjectLimits(on_expiry=on_expiry))
    client = TokenClient(world)
    client.allocate()
    credential = token_credential(client.token)
    revoked = world.turn.control.credential_revoke("prj_a", credential, world.now + 3605, world.now)
    world.perform(revoked)
    assert bool(world.open_ports) is (on_expiry is OnExpiry.DRAIN)
    with refused(401):
        TokenClient(world, client.token, address=("192.0.2.8", 1)).allocate()
    assert world.events[-1] == ("revoked", "prj_a")
    TokenClient(world, address=("192.0.2.8", 2)).allocate()


def test_why_a_token_was_refused_is_found_by_its_id_and_its_key_id() -> None:
    world = world_make(project_limits=ProjectLimits(allocations_max=1))
    client = TokenClient(world)
    client.allocate()
    for _ in range(2):
        with pytest.raises(TurnError):
            TokenClient(world, client.token, address=("192.0.2.8", 1)).allocate()
    for label in (token_credential(client.token), KEY.kid):
        found = world.refusals_explain(label, world.now, "prj_a")
        assert [(refusal.code, refusal.project) for refusal in found] == [(486, "prj_a")] * 2


def test_extension_of_a_token_ends_where_the_token_does() -> None:
    world = world_make()
    client = TokenClient(world, token_make(world.now, lifetime_seconds=600))
    client.allocate()
    credential = token_credential(client.token)
    later = world.now + 9999
    world.turn.control.credential_extend("prj_a", credential, later, later, world.now)
    world.pass_seconds(610)
    assert not world.open_ports
    with refused(401):
        TokenClient(world, client.token, address=("192.0.2.8", 1)).allocate()
