"""Why was this call refused? Asked by username, credential or label; in memory, for minutes."""

from __future__ import annotations

from itertools import chain

import pytest

from relay.core.credentials import password_derive, username_format
from relay.core.limits import OnExpiry, ProjectLimits
from relay.core.refusals import KEPT_SECONDS, LOOKED_AT_ONCE, METHOD_NAMES, RULES, Refusal, Refusals
from tests.relay.fake_link import SECRET, FakeClient, World, settings_make
from tests.turn_client import UDP_PROTOCOL, Attribute, Method, TurnError

REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
TCP = b"\x06\0\0\0"
IMPOSSIBLE = {
    400: [],
    440: [REQUESTED, (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")],
    442: [(Attribute.REQUESTED_TRANSPORT, TCP)],
}
PRIVATE = ("192.168.1.5", 5000)


def labelled(
    world: World, *, label: str = "room-7", project: str = "prj_a", port: int = 1, ttl: int = 3600
) -> FakeClient:
    username = username_format(
        expires_at=int(world.now + ttl), project=project, credential="crd_b", label=label
    )
    return world.client(("192.0.2.7", port), (username, password_derive(SECRET, username)))


def told(world: World, label: str = "room-7") -> list[tuple[str, int, str]]:
    found = world.refusals_explain(label, world.now)
    return [(refusal.method, refusal.code, refusal.rule) for refusal in found]


def provoke(world: World, code: int) -> None:
    """Have a request of "room-7" refused with `code`."""
    client = labelled(world)
    match code:
        case 400 | 440 | 442:
            client.request(Method.ALLOCATE, IMPOSSIBLE[code])
        case 401:
            labelled(world, ttl=-1).allocate()
        case 403:
            client.allocate()
            client.permit(PRIVATE)
        case 437:
            client.refresh(600)
        case 438:
            client.allocate()
            world.pass_seconds(500)
            client.refresh(3600)
            world.pass_seconds(3500)
            attributes = client.signed([(Attribute.LIFETIME, (600).to_bytes(4, "big"))])
            answer = client.exchange(Method.REFRESH, attributes, key=client.key)
            raise TurnError(Method.REFRESH, answer.error_code)
        case 443:
            client.allocate()
            client.permit(("2001:db8::1", 5000))
        case 441:
            labelled(world, label="other").allocate()
            labelled(world).refresh(600)
        case 486:
            limits = ProjectLimits(allocations_max=0)
            world.perform(world.turn.control.project_limits_set("prj_a", limits, world.now))
            client.allocate()
        case 508:
            world.ports_elsewhere = set(range(50000, 50100))
            client.allocate()
        case _:
            raise AssertionError(code)


@pytest.mark.parametrize(
    ("code", "method", "rule"),
    [
        (400, "Allocate", "the request has no right form, or asks for what does not go together"),
        (401, "Allocate", "the credential has expired"),
        (440, "Allocate", "no relayed address of that family is configured here"),
        (442, "Allocate", RULES[442]),
        (443, "CreatePermission", "the allocation has no relayed address of the peer's family"),
        (403, "CreatePermission", "special-purpose range"),
        (437, "Refresh", "there is no allocation on this five-tuple"),
        (438, "Refresh", "the nonce is too old; the answer carries a fresh one"),
        (441, "Refresh", "another username made the allocation on this five-tuple"),
        (486, "Allocate", "the project holds 0 of 0 allocations"),
        (
            508,
            "Allocate",
            "no room is left for what was asked: ports, permissions, channels or peers",
        ),
    ],
)
def test_refusal_is_kept_with_its_rule(code: int, method: str, rule: str) -> None:
    world = World()
    with pytest.raises(TurnError, check=lambda error: error.code == code):
        provoke(world, code)
    assert told(world) == [(method, code, rule)]
    assert told(world, "crd_b") == told(world)
    assert world.turn.guard.refused[code] >= 1


def test_every_method_that_can_be_refused_has_its_name() -> None:
    assert set(World(settings_make(tcp_relay=True)).turn._methods) == set(METHOD_NAMES)


def test_socket_that_cannot_be_opened_is_no_want_of_room() -> None:
    world = World()
    world.no_descriptors = True
    with pytest.raises(TurnError, check=lambda error: error.code == 508):
        labelled(world).allocate()
    [(method, code, rule)] = told(world)
    assert (method, code) == ("Allocate", 508)
    assert rule.startswith("the relayed port could not be opened")


def test_second_allocation_on_a_five_tuple_is_told_apart() -> None:
    world = World()
    client = labelled(world)
    client.allocate()
    with pytest.raises(TurnError):
        client.allocate()
    assert told(world) == [("Allocate", 437, "there is an allocation on this five-tuple already")]


def test_revoked_credential_and_drained_allocation_say_so() -> None:
    world = World(settings_make(project_limits=ProjectLimits(on_expiry=OnExpiry.DRAIN)))
    client = labelled(world)
    client.allocate()
    world.turn.control.credential_revoke("prj_a", "crd_b", 4e9, world.now)
    for attempt in (lambda: client.refresh(600), lambda: labelled(world, port=2).allocate()):
        with pytest.raises(TurnError):
            attempt()
    assert told(world) == [
        ("Refresh", 401, "the credential has ended; what it allocated lives out its lifetime"),
        ("Allocate", 401, "the credential was revoked"),
    ]


def test_strangers_are_a_counter_only() -> None:
    world = World()
    username = labelled(world).username
    with pytest.raises(TurnError):
        world.client(("192.0.2.8", 2), (username, "guess")).allocate()
    assert told(world, username) == told(world) == []
    assert world.turn.guard.refused[401] == 2  # the challenge and the guess


def test_owner_sees_his_own_project_only() -> None:
    world = World(settings_make(project_limits=ProjectLimits(allocations_max=0)))
    for port, project in enumerate(("prj_a", "prj_b"), start=1):
        with pytest.raises(TurnError):
            labelled(world, project=project, port=port).allocate()
    explain = world.refusals_explain
    assert [found.project for found in explain("room-7", world.now, project="prj_b")] == ["prj_b"]
    assert len(explain("room-7", world.now)) == 2
    assert explain("room-7", world.now, project="prj_c") == []
    assert explain("", world.now) == []


def test_what_is_kept_is_forgotten_after_minutes_though_nobody_asks() -> None:
    world = World(settings_make(project_limits=ProjectLimits(allocations_max=0)))
    with pytest.raises(TurnError):
        labelled(world).allocate()
    world.pass_seconds(890)
    assert told(world)
    world.pass_seconds(75)
    assert not world.turn.guard.refusals.count
    assert world.turn.next_deadline() is None


def explained(refusals: Refusals, label: str, at: float) -> list[Refusal]:
    return list(chain.from_iterable(refusals.explain_steps(label, None, at)))


def refusal(project: str, label: str, at: float) -> Refusal:
    return Refusal(at, project, f"1:{project}/crd_b/{label}", "Allocate", 486, "the quota")


def test_refusals_are_bounded_by_project_and_in_sum() -> None:
    refusals = Refusals(per_project_max=3, projects_max=2)
    for number in range(10):
        refusals.keep(refusal("prj_a", str(number), number))
    assert refusals.count == 3
    assert explained(refusals, "6", 10) == []
    assert len(explained(refusals, "7", 10)) == 1
    refusals.keep(refusal("prj_b", "b", 11))
    refusals.keep(refusal("prj_a", "a", 12))
    refusals.keep(refusal("prj_c", "c", 13))  # prj_b was quiet longest
    assert explained(refusals, "b", 13) == []
    assert refusals.count == 4


def test_refusals_of_many_projects_are_bounded_in_sum_and_the_quiet_ones_make_room() -> None:
    refusals = Refusals(per_project_max=3, projects_max=10, kept_max=4)
    for number, project in enumerate(("prj_a", "prj_a", "prj_b", "prj_b", "prj_c", "prj_a")):
        refusals.keep(refusal(project, str(number), number))
        assert refusals.count == min(number + 1, 4)
    # prj_a was quiet longest when prj_c came, prj_b when prj_a came back.
    assert [bool(explained(refusals, str(number), 6)) for number in range(6)] == [
        *(False, True, False, True, True, True)
    ]
    refusals.purge(6 + KEPT_SECONDS)
    assert refusals.count == 0


def test_all_refusals_that_there_may_be_are_looked_through_in_steps() -> None:
    refusals = Refusals(per_project_max=100, projects_max=10_000)
    for number in range(30_000):
        refusals.keep(refusal(f"prj_{number % 400}", "room" if number % 500 == 0 else "x", 1))
    assert refusals.count == 20_000
    steps = list(refusals.explain_steps("room", None, 2))
    assert len(steps) >= 20_000 // LOOKED_AT_ONCE
    assert 0 < sum(map(len, steps)) <= 60
