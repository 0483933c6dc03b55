"""Limits on answers to strangers, and on failures of those who are where they say."""

from __future__ import annotations

import pytest

from relay.core.throttle import SlidingLimit, address_of, network_of
from tests.relay.fake_link import FakeClient, World, credential_make, settings_make
from tests.turn_client import UDP_PROTOCOL, Attribute, Kind, Method, TurnError, message_encode

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
BINDING = message_encode(Method.BINDING, Kind.REQUEST)
ALLOCATE = message_encode(Method.ALLOCATE, Kind.REQUEST, [REQUESTED])
FORGED = message_encode(
    Method.ALLOCATE,
    Kind.REQUEST,
    [REQUESTED, (Attribute.USERNAME, b"1:p/c"), (Attribute.REALM, b"r"), (Attribute.NONCE, b"n")],
    key=b"forged",
)
UNKNOWN_ATTRIBUTE = message_encode(Method.BINDING, Kind.REQUEST, [(0x7777, b"")])


def world_limited() -> World:
    return World(settings_make(unauthenticated_answers_per_second=10, failures_per_minute=5))


def answers(world: World, host: str, datagram: bytes, count: int) -> int:
    """How many of `count` requests from ports of `host` are answered."""
    answered = 0
    for port in range(40000, 40000 + count):
        client = world.client((host, port))
        client.transmit(datagram)
        answered += len(client.arrived)
    return answered


@pytest.mark.parametrize(
    "datagram",
    [BINDING, ALLOCATE, FORGED, UNKNOWN_ATTRIBUTE],
    ids=["binding", "allocate", "forged", "unknown attribute"],
)
def test_ten_unauthenticated_answers_a_second_then_silence(datagram: bytes) -> None:
    world = world_limited()
    assert answers(world, "192.0.2.7", datagram, 100) == 10
    assert world.turn.dropped["unauthenticated answers"] == 90


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("192.0.2.7", "192.0.2.250", True),
        ("192.0.2.7", "192.0.3.7", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.7", "192.0.2.9", True),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_a_24_or_a_64_is_one_source(first: str, second: str, shared: bool) -> None:
    assert (network_of(first) == network_of(second)) is shared


def test_address_is_one_subscriber() -> None:
    assert address_of("192.0.2.7") != address_of("192.0.2.8")
    assert address_of("2001:db8::1") == address_of("2001:db8::2")


def test_no_second_has_more_than_ten_answers_wherever_it_begins() -> None:
    limit = SlidingLimit(10, 1.0)
    times = [step * 0.013 for step in range(1000)]
    answered = [now for now in times if limit.allows("source", 1000.0 + now)]
    for begin in answered:
        assert sum(begin <= now < begin + 1.0 for now in answered) <= 10
    assert len(answered) >= 120  # ten a second for 13 s are 130


def test_limit_of_none_and_limits_out_of_range() -> None:
    assert all(SlidingLimit(0, 1.0).allows("source", 1.0) for _ in range(5000))
    for count in (-1, 1001):
        with pytest.raises(ValueError, match="limit"):
            SlidingLimit(count, 1.0)


def test_streams_cannot_be_spoofed_and_are_not_limited() -> None:
    world = world_limited()
    client = world.client(("192.0.2.7", 40000))
    client.transport = "tcp"
    for _ in range(100):
        client.transmit(BINDING)
    assert len(client.arrived) == 100


def test_authenticated_requests_are_answered_while_strangers_meet_silence() -> None:
    world = world_limited()
    client = world.client(("192.0.2.7", 50000))
    client.allocate()
    answers(world, "192.0.2.8", BINDING, 100)
    assert answers(world, "192.0.2.9", BINDING, 1) == 0
    assert client.refresh(600) == 600


def test_log_gets_one_line_a_minute() -> None:
    world = world_limited()
    answers(world, "192.0.2.7", BINDING, 100)
    assert world.silences == [("unauthenticated answers", 1)]
    world.pass_seconds(59)
    answers(world, "192.0.2.7", BINDING, 100)
    assert len(world.silences) == 1
    world.pass_seconds(1)
    answers(world, "192.0.2.7", BINDING, 100)
    assert world.silences[1:] == [("unauthenticated answers", 181)]


def attempt(client: FakeClient) -> int:
    """The code of an Allocate: 0 where there is silence, 200 where it succeeds."""
    try:
        client.allocate()
    except TurnError as error:
        return error.code
    return 200


def test_failures_beyond_the_limit_meet_silence_and_leave_no_more_events() -> None:
    world = world_limited()
    wrong = credential_make(world.now)[0], "guess"
    codes = []
    for port in range(40000, 40009):
        codes.append(attempt(world.client(("192.0.2.7", port), wrong)))
        world.now += 0.5
    assert codes == [401] * 5 + [0] * 4
    assert len(world.events) == 5
    assert world.turn.dropped["authentication failures"] >= 4
    assert ("authentication failures", 1) in world.silences


def test_right_password_is_let_in_from_an_address_that_failed_too_often() -> None:
    world = world_limited()
    wrong = credential_make(world.now)[0], "guess"
    for port in range(40000, 40009):
        attempt(world.client(("192.0.2.7", port), wrong))
        world.now += 0.5
    assert attempt(world.client(("192.0.2.7", 50000))) == 200


def test_failures_are_answered_again_after_a_minute_and_elsewhere_at_once() -> None:
    world = world_limited()
    wrong = credential_make(world.now)[0], "guess"
    for port in range(40000, 40006):
        attempt(world.client(("192.0.2.7", port), wrong))
        world.now += 0.5
    assert attempt(world.client(("192.0.3.7", 1), wrong)) == 401
    world.now += 60
    assert attempt(world.client(("192.0.2.7", 1), wrong)) == 401


def test_spoofed_failures_do_not_count_against_the_address_they_name() -> None:
    world = World(settings_make(failures_per_minute=5))
    answers(world, "192.0.2.7", FORGED, 100)
    wrong = credential_make(world.now)[0], "guess"
    assert attempt(world.client(("192.0.2.7", 1), wrong)) == 401


def test_limit_counts_nothing_before_the_first_event() -> None:
    limit = SlidingLimit(2, 60.0)
    assert [limit.allows("192.0.2.7", 1.0) for _ in range(3)] == [True, True, False]
