"""Other settings for a running server: new requests, live calls, and what cannot be changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.core.limits import OnExpiry, ProjectLimits
from relay.core.policy import PeerPolicyRules
from relay.core.replacement import FIXED, STEP
from relay.core.settings import NatDiscovery
from tests.relay.fake_link import (
    OLD_SECRET,
    PEER,
    SECRET,
    World,
    credential_make,
    settings_make,
)
from tests.turn_client import TurnError

CHANNEL = 0x4000
PORT_53 = ("8.8.4.4", 4000)


def replace_settings(world: World, **changed: object) -> None:
    """Change settings, and take every step."""
    settings = replace(world.turn.settings, **changed)  # type: ignore[arg-type]
    enforcement = world.turn.settings_replace(settings)
    while not enforcement.is_done:
        world.perform(enforcement.step(world.now))


def refusal_code(world: World, credential: tuple[str, str], port: int = 41000) -> int:
    """What a new Allocate is told; 0 where it gets its allocation."""
    try:
        world.client(("192.0.2.9", port), credential).allocate()
    except TurnError as error:
        return error.code
    return 0


def test_old_secret_is_refused_and_its_call_goes_on() -> None:
    world = World()
    old, new = (credential_make(world.now, secret=secret) for secret in (OLD_SECRET, b"newest"))
    client = world.client(credential=old)
    client.allocate()
    assert refusal_code(world, new) == 401
    replace_settings(world, secrets=(b"newest", SECRET))
    assert refusal_code(world, old) == 401
    assert refusal_code(world, new) == 0
    assert refusal_code(world, credential_make(world.now), 41001) == 0
    world.pass_seconds(300)
    assert client.refresh(600) == 600
    client.permit(PEER)


def test_nonce_of_an_old_key_is_stale_and_the_call_goes_on() -> None:
    world = World()
    client = world.client()
    client.allocate()
    before = client.nonce
    replace_settings(world, nonce_keys=(b"another key",))
    assert client.refresh(600) == 600
    assert client.nonce != before
    replace_settings(world, nonce_keys=(b"a third one", b"another key"))
    before = client.nonce
    assert client.refresh(600) == 600
    assert client.nonce == before


def test_newly_denied_peer_gets_and_sends_nothing_more() -> None:
    world = World()
    client = world.client()
    port = client.port()
    client.bind(CHANNEL, PEER)
    client.permit(PORT_53)
    replace_settings(world, peer_rules=PeerPolicyRules(denied=("8.8.8.0/24",)))
    client.send_channel(CHANNEL, b"no")
    client.send(PEER, b"no")
    world.from_peer(port, PEER, b"no")
    assert not world.to_peers
    assert not client.arrived
    client.send(PORT_53, b"yes")
    assert world.to_peers == [(port, PORT_53, b"yes")]
    with pytest.raises(TurnError) as refused:
        client.permit(PEER)
    assert refused.value.code == 403
    with pytest.raises(TurnError) as refused:
        client.bind(CHANNEL, PEER)
    assert refused.value.code == 403


def test_endpoint_that_became_our_own_loses_its_channel_only() -> None:
    world = World()
    client = world.client()
    port = client.port()
    other = PEER[0], PEER[1] + 1
    client.bind(CHANNEL, PEER)
    client.bind(CHANNEL + 1, other)
    replace_settings(world, peer_rules=PeerPolicyRules(own_endpoints=(PEER,)))
    client.send_channel(CHANNEL, b"no")
    client.permit(PEER)
    client.send_channel(CHANNEL, b"no")
    client.send_channel(CHANNEL + 1, b"yes")
    assert world.to_peers == [(port, other, b"yes")]


def test_newly_denied_peer_loses_its_tcp_connection() -> None:
    world = World(settings_make(tcp_relay=True))
    client = world.client()
    client.allocate()
    (allocation,) = world.started
    kept, ended = (
        world.turn.table.connections.begin(allocation, peer, None, world.now)
        for peer in (PORT_53, PEER)
    )
    replace_settings(world, peer_rules=PeerPolicyRules(denied=("8.8.8.8/32",)))
    assert world.closed == [ended]
    assert world.turn.table.connections.of_allocation(allocation) == [kept]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peer_rules", PeerPolicyRules(denied=("8.8.8.8/24",))),
        ("peer_rules", PeerPolicyRules(allowed=("everything",))),
        ("relay_addresses", ()),
        ("relay_addresses", ("192.0.2.1", "192.0.2.2")),
        ("unauthenticated_answers_per_second", 1001),
        ("failures_per_minute", -1),
        ("realm", "another"),
        ("nat_discovery", NatDiscovery(("192.0.2.1", "192.0.2.2"), (1, 2))),
        *((name, 1) for name in sorted(FIXED - {"realm", "nat_discovery"})),
    ],
)
def test_settings_that_cannot_be_used_change_nothing(name: str, value: object) -> None:
    world = World()
    client = world.client()
    client.allocate()
    before, policy = world.turn.settings, world.turn.table.policy
    with pytest.raises(ValueError, match=r".+"):
        replace_settings(world, secrets=(b"newest",), **{name: value})
    assert world.turn.settings is world.turn.table.settings is before
    assert world.turn.table.policy is policy
    assert refusal_code(world, credential_make(world.now)) == 0
    client.permit(PEER)


def test_new_ports_and_address_are_for_new_allocations() -> None:
    world = World()
    client = world.client()
    before = client.allocate()
    replace_settings(world, relay_addresses=("198.51.100.2",), relay_ports=(60000, 60001))
    clients = [world.client(("192.0.2.9", port)) for port in (1, 2)]
    assert {other.allocate() for other in clients} == {
        ("198.51.100.2", 60000),
        ("198.51.100.2", 60001),
    }
    assert refusal_code(world, credential_make(world.now)) == 508
    client.permit(PEER)
    client.send(PEER, b"out")
    assert world.to_peers == [(before[1], PEER, b"out")]
    for each in (client, *clients):
        each.refresh(0)
    assert world.turn.table.ports.taken_count == 0


def test_relayed_family_that_is_gone_is_refused_and_its_calls_go_on() -> None:
    world = World(settings_make(relay_addresses=("198.51.100.1", "2001:db8::1")))
    client = world.client()
    client.allocate()
    replace_settings(world, relay_addresses=("2001:db8::1",))
    assert refusal_code(world, credential_make(world.now)) == 440
    assert client.refresh(600) == 600
    client.refresh(0)
    assert world.turn.table.ports.taken_count == 0


def test_default_limits_hold_for_live_calls_too() -> None:
    world = World()
    client = world.client(credential=credential_make(world.now, ttl_seconds=60))
    port = client.port()
    client.bind(CHANNEL, PEER)
    limits = ProjectLimits(on_expiry=OnExpiry.CUT, allocations_max=1, media_only=True)
    replace_settings(world, project_limits=limits)
    client.send_channel(CHANNEL, b"\xff no media")
    assert not world.to_peers
    client.send_channel(CHANNEL, b"\x80 media")
    assert len(world.to_peers) == 1
    assert refusal_code(world, credential_make(world.now)) == 486
    replace_settings(world, project_limits=ProjectLimits())
    client.send_channel(CHANNEL, b"\xff again")
    assert [data for *_, data in world.to_peers] == [b"\x80 media", b"\xff again"]
    replace_settings(world, project_limits=limits)
    world.pass_seconds(60)
    assert [allocation.relayed[1].port for allocation in world.ended] == [port]


def test_limits_of_its_own_survive_for_a_project() -> None:
    world = World()
    world.perform(
        world.turn.control.project_limits_set("prj_a", ProjectLimits(allocations_max=1), world.now)
    )
    world.client().allocate()
    replace_settings(world, project_limits=ProjectLimits(allocations_max=5))
    assert refusal_code(world, credential_make(world.now)) == 486


def test_methods_can_be_switched() -> None:
    world = World()
    client = world.client()
    client.transport = "tcp"
    replace_settings(world, tcp_relay=True, mobility=False, channel_number_max=0x4FFF)
    client.allocate()
    with pytest.raises(TurnError) as refused:
        client.bind(0x5000, PEER)
    assert refused.value.code == 400
    replace_settings(world, tcp_relay=False, channel_number_max=0x7FFF)
    client.bind(0x5000, PEER)


def test_throttles_can_be_changed() -> None:
    world = World()
    replace_settings(world, unauthenticated_answers_per_second=1)
    assert world.client().binding()
    with pytest.raises(TurnError) as silence:
        world.client().binding()
    assert silence.value.code == 0
    replace_settings(world, mobility=False)  # what was counted is remembered
    with pytest.raises(TurnError):
        world.client().binding()
    replace_settings(world, unauthenticated_answers_per_second=0)
    assert world.client().binding()


def test_live_calls_are_held_to_new_settings_some_at_a_time() -> None:
    world = World(settings_make(relay_ports=(50000, 50999)))
    count = 2 * STEP + 1
    for number in range(count):
        client = world.client(("192.0.2.7", 10000 + number))
        client.allocate()
        client.permit(PEER)
    rules = PeerPolicyRules(denied=("8.8.8.8/32",))
    enforcement = world.turn.settings_replace(replace(world.turn.settings, peer_rules=rules))
    left = []
    while not enforcement.is_done:
        world.perform(enforcement.step(world.now))
        left.append(sum(bool(found.permissions) for found in world.started))
    assert left == [STEP + 1, 1, 0]


def test_call_that_ends_between_two_steps_is_left_alone() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    settings = replace(
        world.turn.settings,
        peer_rules=PeerPolicyRules(denied=("8.8.8.8/32",)),
        project_limits=ProjectLimits(on_expiry=OnExpiry.CUT),
    )
    enforcement = world.turn.settings_replace(settings)
    client.refresh(0)
    world.perform(enforcement.step(world.now))
    world.pass_seconds(7200)
    assert len(world.ended) == 1


def test_same_settings_leave_live_calls_alone() -> None:
    world = World()
    world.client().allocate()
    assert world.turn.settings_replace(replace(world.turn.settings)).is_done
