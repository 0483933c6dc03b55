"""The long-term credential mechanism, old and new: RFC 8489 section 9.2."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import re
from collections import Counter
from typing import Any

import pytest

from relay.core import nonce, stun
from relay.core.addresses import SockAddress
from relay.core.credentials import password_derive
from relay.core.settings import TurnSettings
from tests.relay.expectations import refused
from tests.relay.fake_link import (
    OLD_SECRET,
    PEER,
    SECRET,
    START,
    FakeClient,
    World,
    credential_make,
    settings_make,
)
from tests.turn_client import (
    UDP_PROTOCOL,
    Attribute,
    Kind,
    Message,
    Method,
    long_term_key,
    message_encode,
)

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
BOTH_ALGORITHMS = bytes.fromhex("0002000000010000")
MD5 = bytes.fromhex("00010000")
SHA256 = bytes.fromhex("00020000")


def test_first_allocate_is_challenged_in_less_than_2_8_times_its_bytes() -> None:
    client = World().client()
    answer = client.exchange(Method.ALLOCATE, [REQUESTED])
    assert answer.error_code == 401
    assert answer.attributes[Attribute.REALM] == b"turn"
    assert answer.attributes[Attribute.PASSWORD_ALGORITHMS] == BOTH_ALGORITHMS
    assert (client.sent, client.received) == ([28], [76])


def test_bare_header_gets_the_short_challenge() -> None:
    client = World().client()
    answer = client.exchange(Method.ALLOCATE)
    assert answer.error_code == 401
    assert Attribute.PASSWORD_ALGORITHMS not in answer.attributes
    assert (client.sent, client.received) == ([20], [52])


def test_old_secret_is_accepted_while_secrets_rotate() -> None:
    world = World()
    world.client(credential=credential_make(world.now, secret=OLD_SECRET)).allocate()


@pytest.mark.parametrize(
    ("credential", "outcome", "project"),
    [
        ({"secret": b"no secret of ours"}, "wrong_password", None),
        ({"ttl_seconds": 0}, "expired", "prj_a"),
        ({"ttl_seconds": -5}, "expired", "prj_a"),
        ({"ttl_seconds": 31 * 24 * 3600}, "unknown_user", "prj_a"),
    ],
)
def test_bad_credential_is_refused_and_logged(
    credential: dict[str, Any], outcome: str, project: str | None
) -> None:
    world = World()
    client = world.client(credential=credential_make(world.now, **credential))
    with refused(401):
        client.allocate()
    assert world.events == [(outcome, project)]


def test_unknown_user_and_wrong_password_get_the_same_bytes() -> None:
    answers = []
    for username in ("somebody", credential_make(START)[0]):
        client = World().client(credential=(username, "guess"))
        with refused(401):
            client.allocate()
        answer = client.exchange(
            Method.ALLOCATE,
            [
                REQUESTED,
                (Attribute.USERNAME, username.encode()),
                (Attribute.REALM, client.realm),
                (Attribute.NONCE, client.nonce),
            ],
            key=client.key,
        )
        answers.append(answer.attributes)
    assert answers[0] == answers[1]


def username_of(length: int) -> tuple[str, str]:
    """A good username of so many bytes, and its password."""
    username = credential_make(START)[0] + "/"
    username += "x" * (length - len(username))
    return username, password_derive(SECRET, username)


def test_username_of_508_bytes_is_taken() -> None:
    World().client(credential=username_of(508)).allocate()


@pytest.mark.parametrize(("length", "code"), [(509, 401), (763, 401), (764, 400)])
def test_username_of_more_than_508_bytes_is_read_up_to_763_and_nobodys(
    length: int, code: int
) -> None:
    client = World().client(credential=username_of(length))
    with refused(code):
        client.allocate()


@pytest.mark.parametrize("part", [Attribute.USERNAME, Attribute.REALM])
def test_username_that_is_no_utf_8_is_a_bad_request(part: Attribute) -> None:
    client = World().client()
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    parts = {**dict(client.credential_attributes()), part: b"\xff"}
    answer = client.exchange(Method.ALLOCATE, [REQUESTED, *parts.items()], key=client.key)
    assert answer.error_code == 400


@pytest.mark.parametrize("missing", [Attribute.USERNAME, Attribute.REALM, Attribute.NONCE])
def test_request_without_a_part_of_its_credential_is_a_bad_request(missing: Attribute) -> None:
    client = World().client()
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    parts = {
        Attribute.USERNAME: client.username.encode(),
        Attribute.REALM: client.realm,
        Attribute.NONCE: client.nonce,
    }
    del parts[missing]
    answer = client.exchange(Method.ALLOCATE, [REQUESTED, *parts.items()], key=client.key)
    assert answer.error_code == 400


def test_nonce_of_another_address_is_stale_and_leaves_no_trace_in_the_log() -> None:
    world = World()
    first, second = world.client(), world.client(("192.0.2.9", 40000))
    first.challenge_take(first.exchange(Method.ALLOCATE, [REQUESTED]))
    signed = [
        REQUESTED,
        (Attribute.USERNAME, first.username.encode()),
        (Attribute.REALM, first.realm),
        (Attribute.NONCE, first.nonce),
    ]
    assert second.exchange(Method.ALLOCATE, signed, key=first.key).error_code == 438
    assert second.exchange(Method.ALLOCATE, signed, key=b"wrong").error_code == 401
    assert world.events == []


def test_stale_nonce_is_answered_438_with_a_fresh_one_that_works() -> None:
    world = World(settings_make(nonce_lifetime_seconds=600))
    client = world.client()
    client.allocate(3600)
    world.pass_seconds(700)
    answer = client.exchange(
        Method.REFRESH,
        [
            (Attribute.USERNAME, client.username.encode()),
            (Attribute.REALM, client.realm),
            (Attribute.NONCE, client.nonce),
        ],
        key=client.key,
    )
    assert answer.error_code == 438
    assert client.refresh(600) == 600


def test_call_outlives_the_credential_that_began_it() -> None:
    world = World()
    client = world.client(credential=credential_make(world.now, ttl_seconds=60))
    client.allocate()
    world.pass_seconds(120)
    assert client.refresh(600) == 600
    with refused(401):
        world.client(("192.0.2.9", 1), (client.username, client.password)).allocate()


def test_another_username_on_a_live_five_tuple_is_441() -> None:
    world = World()
    world.client().allocate()
    other = world.client(credential=credential_make(world.now, project="prj_other"))
    for attempt in (lambda: other.refresh(600), lambda: other.permit(PEER)):
        with refused(441):
            attempt()


def test_credential_ends_by_the_time_of_day_and_lifetimes_by_steady_time() -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.turn.unix_offset_seconds = 7200.0  # the system's clock was set two hours ahead
    world.pass_seconds(599)
    assert len(world.open_ports) == 1
    late = world.client(("192.0.2.8", 40000), credential_make(world.now))
    with refused(401):
        late.allocate()
    assert world.events[-1] == ("expired", "prj_a")
    world.client(("192.0.2.9", 40000), credential_make(world.now + 7200)).allocate()


# --- what nobody can tell apart, and what no timestamp gets --------------------------------------


TIMESTAMPS = [
    *("", "0", "-1", "1", "+1800000600", " 1800000600", "1800000600 ", "1_800_000_600"),
    *("0x6B49D458", "1.8e9", "1800000600.5", "nan", "inf", "now", "\u0661\u0662", "\u00b2"),
    *("9" * 13, "9" * 400, str(2**63), str(-(2**63)), str(int(START) + 10**9)),
    *("4102444800", "1800000000", "1799999999"),
]


@pytest.mark.parametrize("timestamp", TIMESTAMPS)
def test_timestamp_that_is_over_malformed_or_far_ahead_is_401(timestamp: str) -> None:
    username = f"{timestamp}:prj_a/crd_b"
    client = World().client(credential=(username, password_derive(SECRET, username)))
    with refused(401):
        client.allocate()


@pytest.mark.parametrize("username", ["", ":", "1800000600", "1800000600:", "1800000600:prj_a"])
def test_username_of_another_form_is_401(username: str) -> None:
    client = World().client(credential=(username, password_derive(SECRET, username)))
    with refused(401):
        client.allocate()


@pytest.mark.replaces_parts
def test_whoever_is_refused_costs_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    digest, compare, nonce_mac = hmac.digest, hmac.compare_digest, nonce._mac

    def nonce_counted(key: bytes, prefix: bytes, units: int, client: SockAddress) -> bytes:
        calls["nonce"] += 1
        return nonce_mac(key, prefix, units, client)

    def digest_counted(key: bytes, message: bytes, name: str) -> bytes:
        calls[name] += 1
        return digest(key, message, name)

    def compare_counted(first: bytes, second: bytes) -> bool:
        calls["compare"] += 1
        return compare(first, second)

    monkeypatch.setattr(hmac, "digest", digest_counted)
    monkeypatch.setattr(hmac, "compare_digest", compare_counted)
    monkeypatch.setattr(nonce, "_mac", nonce_counted)
    work = []
    known, expired = credential_make(START), credential_make(START, ttl_seconds=-5)
    for username, password in (
        ("somebody", "guess"),
        (known[0], "guess"),
        expired,
        ("9" * 400 + ":prj_a/crd_b", "guess"),
    ):
        client = World().client(credential=(username, password))
        client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
        signed = client.signed([REQUESTED])
        datagram = message_encode(Method.ALLOCATE, Kind.REQUEST, signed, key=client.key)
        calls.clear()
        client.transmit(datagram)
        work.append(dict(calls))
    # For each of two secrets a password and its integrity; the old nonce and the new one.
    assert work[0] == {"sha1": 4, "nonce": 2, "compare": 3}
    assert all(done == work[0] for done in work)


@pytest.mark.replaces_parts
def test_secrets_are_compared_in_constant_time() -> None:
    for module in (stun, nonce):
        source = inspect.getsource(module)
        assert "hmac.compare_digest(" in source
        assert not re.search(r"(expected|mac|integrity\w*) [!=]= ", source)


# --- SHA-256, USERHASH and bid-down ---------------------------------------------------------------


class ModernClient(FakeClient):
    """A client of RFC 8489: takes the strongest algorithm, and hides its name where it may."""

    sha256 = True
    chosen = SHA256
    offered = BOTH_ALGORITHMS
    anonymous = False

    def challenge_take(self, answer: Message) -> None:
        super().challenge_take(answer)
        digest = "sha256" if self.chosen == SHA256 else "md5"
        self.key = long_term_key(self.username, self.realm.decode(), self.password, digest)

    def credential_attributes(self) -> list[tuple[int, bytes]]:
        name, *rest = super().credential_attributes()
        if self.anonymous:
            hashed = userhash_of(self.username, self.realm.decode())
            name = Attribute.USERHASH, hashed
        return [
            name,
            *rest,
            (Attribute.PASSWORD_ALGORITHMS, self.offered),
            (Attribute.PASSWORD_ALGORITHM, self.chosen),
        ]


def userhash_of(username: str, realm: str) -> bytes:
    return hashlib.sha256(f"{username}:{realm}".encode()).digest()


def modern(world: World, address: tuple[str, int] = ("192.0.2.7", 40000)) -> ModernClient:
    return ModernClient(world, address, *credential_make(world.now))


@pytest.mark.parametrize("chosen", [MD5, SHA256])
def test_client_of_rfc_8489_allocates_and_is_answered_with_sha256(chosen: bytes) -> None:
    world = World()
    client = modern(world)
    client.chosen = chosen
    answer = client.request(Method.ALLOCATE, [REQUESTED])
    assert Attribute.MESSAGE_INTEGRITY_SHA256 in answer.attributes
    assert Attribute.MESSAGE_INTEGRITY not in answer.attributes
    client.permit(PEER)
    assert client.refresh(600) == 600


@pytest.mark.parametrize("chosen", [MD5, SHA256])
def test_challenge_of_one_process_is_answered_in_another(chosen: bytes) -> None:
    first, second = World(), World()
    client = modern(first)
    client.chosen = chosen
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    assert first.turn.table.by_id == {}
    client.world = second
    second.clients[client.address] = client
    answer = client.exchange(Method.ALLOCATE, client.signed([REQUESTED]), key=client.key)
    assert answer.error_code == 0
    assert len(second.turn.table.by_id) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"offered": MD5},
        {"offered": SHA256},
        {"offered": b""},
        {"offered": bytes.fromhex("0001000000020000")},
        {"chosen": bytes.fromhex("00030000")},
        {"chosen": b""},
    ],
)
def test_bid_down_is_a_bad_request(change: dict[str, bytes]) -> None:
    client = modern(World())
    for name, value in change.items():
        setattr(client, name, value)
    with refused(400):
        client.allocate()


@pytest.mark.parametrize("missing", [Attribute.PASSWORD_ALGORITHMS, Attribute.PASSWORD_ALGORITHM])
def test_one_of_the_two_algorithm_attributes_alone_is_a_bad_request(missing: Attribute) -> None:
    client = modern(World())
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    parts = [part for part in client.credential_attributes() if part[0] != missing]
    answer = client.exchange(Method.ALLOCATE, [REQUESTED, *parts], key=client.key)
    assert answer.error_code == 400


def test_nonce_whose_features_were_taken_away_is_refused() -> None:
    world = World()
    client = modern(world)
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    client.nonce = client.nonce[13:]
    signed = [REQUESTED, *client.credential_attributes()]
    assert client.exchange(Method.ALLOCATE, signed, key=client.key).kind is Kind.ERROR
    assert world.events == []


def test_userhash_stands_for_a_username_that_was_announced() -> None:
    world = World()
    client = modern(world)
    client.anonymous = True
    with refused(401):
        client.allocate()
    world.turn.usernames.announce(client.username)
    client.key = b""
    answer = client.exchange(Method.ALLOCATE, [REQUESTED])
    assert answer.attributes[Attribute.NONCE].startswith(b"obMatJos2AAAD")
    client.challenge_take(answer)
    client.allocate()
    assert client.refresh(600) == 600
    assert [allocation.username for allocation in world.started] == [client.username]


def test_userhash_of_another_length_is_a_bad_request() -> None:
    client = modern(World())
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    signed = [REQUESTED, (Attribute.USERHASH, b"short"), *client.credential_attributes()[1:]]
    assert client.exchange(Method.ALLOCATE, signed, key=client.key).error_code == 400


def test_usernames_announced_are_bounded() -> None:
    settings: TurnSettings = settings_make(usernames_max=2)
    world = World(settings)
    first = modern(world)
    first.anonymous = True
    for username in (first.username, "b", "c"):
        world.turn.usernames.announce(username)
    with refused(401):
        first.allocate()
