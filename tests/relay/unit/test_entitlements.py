"""Quotas by project, and what becomes of calls whose credential ends: cut, drain, keep."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from relay.core.entitlements import AT_ONCE_MAX, EntitlementsFullError
from relay.core.gate import BURST_SECONDS
from relay.core.limits import OnExpiry, ProjectLimits
from tests.relay.expectations import refused
from tests.relay.fake_link import PEER, FakeClient, World, credential_make, settings_make
from tests.turn_client import (
    UDP_PROTOCOL,
    Attribute,
    Kind,
    Method,
    TurnError,
    message_decode,
    message_encode,
)

EVEN_PORT = 0x0018
RESERVATION_TOKEN = 0x0022
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
FOREVER = 4e9


def world_with(limits: ProjectLimits, **changed: object) -> World:
    return World(settings_make(project_limits=limits, **changed))


def client_of(world: World, project: str, port: int, ttl_seconds: float = 3600) -> FakeClient:
    credential = credential_make(world.now, project=project, ttl_seconds=ttl_seconds)
    return world.client(("192.0.2.7", port), credential)


def many_made(world: World, count: int) -> list[FakeClient]:
    clients = [client_of(world, "prj_a", port) for port in range(1, count + 1)]
    for client in clients:
        client.allocate()
    return clients


# --- many at once ---------------------------------------------------------------------------------


def test_many_that_are_cut_at_once_end_in_steps_that_follow_at_once() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.DRAIN), relay_ports=(50000, 50999))
    many_made(world, 1000)
    control = world.turn.control
    world.perform(control.credential_revoke("prj_a", "crd_b", FOREVER, world.now))
    cut = ProjectLimits(on_expiry=OnExpiry.CUT)
    steps = [len(effects) for effects in [control.project_limits_set("prj_a", cut, world.now)]]
    while (deadline := world.turn.next_deadline()) is not None and deadline <= world.now:
        steps.append(len(world.turn.handle_deadline(world.now)))
    assert sum(steps) == 1000
    assert max(steps) <= AT_ONCE_MAX
    assert world.turn.table.entitlements.held_count("prj_a") == 0
    assert world.turn.table.ports.taken_count == 0


def test_many_that_expire_at_once_end_in_steps_that_follow_at_once() -> None:
    world = world_with(ProjectLimits(), relay_ports=(50000, 50999))
    many_made(world, 1000)
    world.now += 600  # nobody has looked at the deadlines meanwhile
    steps = []
    while (deadline := world.turn.next_deadline()) is not None and deadline <= world.now:
        steps.append(len(world.turn.handle_deadline(world.now)))
    assert sum(steps) == 1000
    assert max(steps) <= AT_ONCE_MAX
    assert world.turn.table.ports.taken_count == 0


def test_limits_that_change_twice_reach_everybody_once_and_as_they_are_last() -> None:
    world = world_with(ProjectLimits(), relay_ports=(50000, 50999))
    many_made(world, 1000)
    for bitrate in (8000, 16_000, None, 32_000):
        limits = ProjectLimits(bitrate_bps_max=bitrate)
        world.perform(world.turn.control.project_limits_set("prj_a", limits, world.now))
    told = sum(found.gate is not None for found in world.started)
    assert 0 < told < 1000
    for ended in list(world.turn.table.by_id)[::7]:  # what ends meanwhile is not told
        world.perform(world.turn.control.session_end(ended))
    world.pass_seconds(0)
    live = world.turn.table.by_id.values()
    assert all(found.gate for found in live)
    rests = {found.gate.from_client.rest(8000, world.now) for found in live if found.gate}
    assert rests == {8000 * 8 / 32_000 - BURST_SECONDS}
    assert world.turn.next_deadline() != -inf


# --- quotas ---------------------------------------------------------------------------------------


def test_quota_counts_by_project_whatever_the_username() -> None:
    world = world_with(ProjectLimits(allocations_max=2))
    for port in (1, 2):
        credential = credential_make(world.now + port, project="prj_a")
        world.client(("192.0.2.7", port), credential).allocate()
    with refused(486):
        client_of(world, "prj_a", 3).allocate()
    client_of(world, "prj_b", 4).allocate()


def test_deleted_and_expired_allocations_make_room() -> None:
    world = world_with(ProjectLimits(allocations_max=1))
    client_of(world, "prj_a", 1).allocate()
    world.pass_seconds(601)
    second = client_of(world, "prj_a", 2)
    second.allocate()
    second.refresh(0)
    client_of(world, "prj_a", 3).allocate()
    assert world.turn.table.entitlements.held_count("prj_a") == 1


def test_allocations_whose_sockets_are_being_opened_count() -> None:
    world = world_with(ProjectLimits(allocations_max=10))
    world.opening_is_slow = True
    clients = [client_of(world, "prj_a", port) for port in range(1, 101)]
    codes = []
    for client in clients:
        client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
        signed = client.signed([REQUESTED])
        client.transmit(message_encode(Method.ALLOCATE, Kind.REQUEST, signed, key=client.key))
        if client.arrived:
            codes.append(message_decode(client.datagram_receive()).error_code)
    assert codes == [486] * 90
    world.open_all()
    assert len(world.started) == 10
    assert world.turn.table.entitlements.held_count("prj_a") == 10


@pytest.mark.parametrize(
    "attributes",
    [[(EVEN_PORT, b"")], [(EVEN_PORT, b"\0\0")], [(RESERVATION_TOKEN, bytes(8))], []],
)
def test_allocate_that_fails_holds_nothing(attributes: list[tuple[int, bytes]]) -> None:
    world = world_with(ProjectLimits(allocations_max=5), relay_ports=(50000, 50003))
    if not attributes:
        world.ports_elsewhere = set(range(50000, 50004))
    with pytest.raises(TurnError):
        client_of(world, "prj_a", 1).request(Method.ALLOCATE, [REQUESTED, *attributes])
    assert world.turn.table.entitlements.held_count("prj_a") == 0


def test_credential_may_have_a_quota_of_its_own() -> None:
    world = World()
    world.perform(
        world.turn.control.credential_limit(
            "prj_a", "crd_b", FOREVER, world.now, allocations_max=1
        ),
    )
    client_of(world, "prj_a", 1).allocate()
    with refused(486):
        client_of(world, "prj_a", 2).allocate()
    (refusal,) = world.refusals_explain("crd_b", world.now)
    assert refusal.rule == "the credential holds 1 of 1 allocations"


def test_lowered_quota_ends_nothing_and_lets_nothing_new_in() -> None:
    world = World()
    for port in (1, 2):
        client_of(world, "prj_a", port).allocate()
    limits = ProjectLimits(allocations_max=0)
    world.perform(world.turn.control.project_limits_set("prj_a", limits, world.now))
    assert world.ended == []
    with refused(486):
        client_of(world, "prj_a", 3).allocate()
    world.perform(world.turn.control.project_limits_set("prj_a", None, world.now))
    client_of(world, "prj_a", 3).allocate()


# --- expiry ---------------------------------------------------------------------------------------


def test_cut_ends_the_allocation_when_its_credential_ends() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    client = client_of(world, "prj_a", 1, ttl_seconds=90)
    answer = client.request(Method.ALLOCATE, [REQUESTED])
    assert int.from_bytes(answer.attributes[Attribute.LIFETIME], "big") == 90
    world.pass_seconds(60)
    assert client.refresh(600) == 30
    world.pass_seconds(29.9)
    assert world.ended == []
    world.pass_seconds(0.2)
    assert world.ended == world.started
    assert world.turn.table.ports.taken_count == 0


def test_cut_is_by_the_time_of_day_and_rings_by_the_steady_time() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    world.turn.unix_offset_seconds = 10_000.0
    credential = credential_make(world.now + 10_000, ttl_seconds=60)
    client = world.client(("192.0.2.7", 1), credential)
    client.allocate()
    assert client.refresh(600) == 60
    assert world.turn.next_deadline() == pytest.approx(world.now + 60, abs=1)
    world.turn.unix_offset_seconds += 30  # the system's clock was set
    assert client.refresh(600) == 30
    world.pass_seconds(29)
    assert not world.ended
    world.pass_seconds(2)
    assert len(world.ended) == 1


def test_revocation_and_drain_are_by_the_time_of_day() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.DRAIN))
    world.turn.unix_offset_seconds = 10_000.0
    client = world.client(("192.0.2.7", 1), credential_make(world.now + 10_000))
    client.allocate()
    client.refresh(600)
    world.perform(world.turn.control.credential_revoke("prj_a", "crd_b", FOREVER, world.now))
    with refused(401):
        client.refresh(600)


def test_clock_set_forward_cuts_what_has_ended_by_it() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    client_of(world, "prj_a", 1, ttl_seconds=60).allocate()
    client_of(world, "prj_a", 2, ttl_seconds=7200).allocate()
    world.turn.unix_offset_seconds += 3600
    world.pass_seconds(0)
    assert world.ended == world.started[:1]


def test_clock_set_back_puts_a_cut_off_and_moves_no_lifetime() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    client = client_of(world, "prj_a", 1, ttl_seconds=60)
    client.allocate()
    world.turn.unix_offset_seconds -= 3600
    world.pass_seconds(599)
    assert not world.ended
    world.pass_seconds(2)
    assert world.ended == world.started


def test_clock_set_back_after_a_refresh_is_asked_again_at_the_new_time() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    client = client_of(world, "prj_a", 1, ttl_seconds=60)
    client.allocate()
    world.turn.unix_offset_seconds -= 300
    assert client.refresh(3600) == 360
    world.pass_seconds(359)
    assert not world.ended
    world.pass_seconds(2)
    assert world.ended == world.started


@pytest.mark.parametrize("step_seconds", [-86_400, 86_400])
def test_revocation_holds_whatever_the_clock_is_set_to(step_seconds: int) -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.DRAIN))
    client = client_of(world, "prj_a", 1, ttl_seconds=200_000)
    client.allocate()
    control = world.turn.control
    world.perform(control.credential_revoke("prj_a", "crd_b", FOREVER, world.now))
    world.turn.unix_offset_seconds += step_seconds
    with refused(401):
        client.refresh(600)
    with refused(401):
        client_of(world, "prj_a", 2, ttl_seconds=200_000).allocate()
    assert not world.ended
    cut = ProjectLimits(on_expiry=OnExpiry.CUT)
    world.perform(control.project_limits_set("prj_a", cut, world.now))
    assert world.ended == world.started


@pytest.mark.parametrize("on_expiry", [OnExpiry.CUT, OnExpiry.KEEP])
def test_clock_set_back_while_a_socket_is_opened_saves_no_revoked_call(on_expiry: OnExpiry) -> None:
    world = world_with(ProjectLimits(on_expiry=on_expiry))
    world.opening_is_slow = True
    client = client_of(world, "prj_a", 1)
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    asked = message_encode(
        Method.ALLOCATE, Kind.REQUEST, client.signed([REQUESTED]), key=client.key
    )
    client.transmit(asked)
    world.perform(world.turn.control.credential_revoke("prj_a", "crd_b", FOREVER, world.now))
    world.turn.unix_offset_seconds -= 3600
    world.open_all()
    assert len(world.started) == 1
    assert world.ended == world.started


def test_cut_that_was_set_twice_ends_the_allocation_once() -> None:
    cut, keep = ProjectLimits(on_expiry=OnExpiry.CUT), ProjectLimits(on_expiry=OnExpiry.KEEP)
    world = world_with(cut)
    client_of(world, "prj_a", 1, ttl_seconds=60).allocate()
    for limits in (keep, cut):
        world.perform(world.turn.control.project_limits_set("prj_a", limits, world.now))
    world.pass_seconds(61)
    assert len(world.ended) == 1


def test_cuts_of_ended_allocations_are_swept_out() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    client = client_of(world, "prj_a", 1)
    for _ in range(300):
        client.allocate()
        client.refresh(0)
    assert len(world.turn.table.entitlements._cuts) < 100
    client.allocate()
    world.pass_seconds(500)
    client.refresh(600)
    assert len(world.ended) == 300


def test_drain_refuses_refresh_and_lets_the_lifetime_end() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.DRAIN))
    client = client_of(world, "prj_a", 1, ttl_seconds=90)
    client.allocate(600)
    world.pass_seconds(91)
    with refused(401):
        client.refresh(600)
    client.permit(PEER)
    client.bind(0x4000, PEER)
    client.send_channel(0x4000, b"still here")
    assert world.to_peers
    world.pass_seconds(508)
    assert world.ended == []
    world.pass_seconds(2)
    assert world.ended == world.started


def test_drained_allocation_may_be_deleted() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.DRAIN))
    client = client_of(world, "prj_a", 1, ttl_seconds=90)
    client.allocate(600)
    world.pass_seconds(91)
    assert client.refresh(0) == 0
    assert world.ended == world.started


def test_keep_lets_the_call_go_on() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.KEEP))
    client = client_of(world, "prj_a", 1, ttl_seconds=90)
    client.allocate(600)
    world.pass_seconds(91)
    assert client.refresh(600) == 600


# --- revocation and extension ---------------------------------------------------------------------


@pytest.mark.parametrize("on_expiry", OnExpiry)
def test_revocation_ends_the_call_unless_the_project_drains_and_lets_nothing_new_in(
    on_expiry: OnExpiry,
) -> None:
    world = world_with(ProjectLimits(on_expiry=on_expiry))
    client, other = client_of(world, "prj_a", 1), client_of(world, "prj_b", 2)
    client.allocate()
    other.allocate()
    world.perform(world.turn.control.credential_revoke("prj_a", "crd_b", FOREVER, world.now))
    if on_expiry is OnExpiry.DRAIN:
        assert world.ended == []
        with refused(401):
            client.refresh(600)
    else:
        assert [found.owner for found in world.ended] == ["prj_a"]
    with refused(401):
        client_of(world, "prj_a", 3).allocate()
    assert ("revoked", "prj_a") in world.events
    assert other.refresh(600) == 600


def test_revocation_ends_a_call_that_its_expired_credential_kept() -> None:
    world = World()  # as the settings are where nobody says anything
    client = client_of(world, "prj_a", 1, ttl_seconds=90)
    client.allocate(600)
    world.pass_seconds(91)
    assert client.refresh(600) == 600
    world.perform(world.turn.control.credential_revoke("prj_a", "crd_b", FOREVER, world.now))
    assert world.ended == world.started


def test_credential_may_be_told_to_drain_where_its_project_says_nothing() -> None:
    world = World()
    client_of(world, "prj_a", 1).allocate(600)
    control = world.turn.control
    world.perform(
        control.credential_limit("prj_a", "crd_b", FOREVER, world.now, on_expiry=OnExpiry.DRAIN)
    )
    world.perform(control.credential_revoke("prj_a", "crd_b", FOREVER, world.now))
    world.pass_seconds(599)
    assert world.ended == []
    world.pass_seconds(2)
    assert world.ended == world.started


def test_extension_needs_no_new_username() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    client = client_of(world, "prj_a", 1, ttl_seconds=90)
    client.allocate()
    end = world.now + 500
    world.perform(world.turn.control.credential_extend("prj_a", "crd_b", end, end, world.now))
    world.pass_seconds(200)
    assert world.ended == []
    assert client.refresh(600) == 300
    again = world.client(("192.0.2.7", 2), (client.username, client.password))
    again.allocate()
    world.pass_seconds(301)
    assert len(world.ended) == 2


def test_earlier_end_holds_at_once() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    client_of(world, "prj_a", 1).allocate()
    end = world.now + 10
    world.perform(world.turn.control.credential_extend("prj_a", "crd_b", end, FOREVER, world.now))
    world.pass_seconds(11)
    assert world.ended == world.started


def test_extended_credential_can_still_be_revoked() -> None:
    world = world_with(ProjectLimits(on_expiry=OnExpiry.CUT))
    client_of(world, "prj_a", 1).allocate()
    control, now = world.turn.control, world.now
    world.perform(control.credential_revoke("prj_a", "crd_b", FOREVER, now))
    world.perform(control.credential_extend("prj_a", "crd_b", now + 9999, FOREVER, now))
    with refused(401):
        client_of(world, "prj_a", 2).allocate()


def test_change_of_project_limits_holds_for_what_lives() -> None:
    world = World()
    client = client_of(world, "prj_a", 1, ttl_seconds=60)
    client.allocate()
    world.pass_seconds(100)
    limits = ProjectLimits(on_expiry=OnExpiry.CUT, bitrate_bps_max=8000, media_only=True)
    world.perform(
        world.turn.control.project_limits_set(
            "prj_a", replace(limits, on_expiry=OnExpiry.KEEP), world.now
        ),
    )
    assert world.started[0].gate is not None
    world.perform(world.turn.control.project_limits_set("prj_a", limits, world.now))
    assert world.ended == world.started


def test_lower_of_two_bitrates_holds() -> None:
    world = world_with(ProjectLimits(bitrate_bps_max=1_000_000))
    control = world.turn.control
    control.credential_limit("prj_a", "crd_b", FOREVER, world.now, bitrate_bps_max=8000)
    entitlements = world.turn.table.entitlements
    assert entitlements.limits("prj_a", "crd_b").bitrate_bps_max == 8000
    assert entitlements.limits("prj_a", "crd_c").bitrate_bps_max == 1_000_000
    control.credential_limit("prj_a", "crd_b", FOREVER, world.now, bitrate_bps_max=9_000_000)
    assert entitlements.limits("prj_a", "crd_b").bitrate_bps_max == 1_000_000


def test_session_is_ended_by_its_number_once() -> None:
    world = World()
    world.client().allocate()
    number = world.started[0].id
    world.perform(world.turn.control.session_end(number))
    assert world.ended == world.started
    assert world.turn.control.session_end(number) == []


def test_revocations_are_bounded_and_never_pushed_out() -> None:
    world = World(settings_make(overrides_max=2))
    control, now = world.turn.control, world.now
    control.credential_revoke("prj_a", "crd_1", now + 60, now)
    control.credential_revoke("prj_a", "crd_2", now + 3600, now)
    for _ in range(10):  # set again: no new room is needed
        control.credential_revoke("prj_a", "crd_2", now + 3600, now)
    with pytest.raises(EntitlementsFullError):
        control.credential_revoke("prj_a", "crd_3", now + 60, now)
    control.credential_revoke("prj_a", "crd_3", now + 120, now + 60)  # crd_1 is forgotten
    with pytest.raises(EntitlementsFullError):
        control.credential_revoke("prj_a", "crd_4", now + 120, now + 60)


def test_projects_with_limits_of_their_own_are_bounded() -> None:
    world = World(settings_make(projects_max=1))
    control = world.turn.control
    control.project_limits_set("prj_a", ProjectLimits(), world.now)
    with pytest.raises(EntitlementsFullError):
        control.project_limits_set("prj_b", ProjectLimits(), world.now)
    control.project_limits_set("prj_a", ProjectLimits(media_only=True), world.now)
    control.project_limits_set("prj_a", None, world.now)
    control.project_limits_set("prj_b", ProjectLimits(), world.now)
