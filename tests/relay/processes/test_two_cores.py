"""Two cores as two processes of one relay have them: each decides, knowing what the other holds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relay.config import RelayConfig
from relay.core.access_tokens import token_credential
from relay.core.addresses import host_pack
from relay.core.holdings import QuotaExceeded
from relay.core.limits import ProjectLimits
from relay.core.policy import PeerPolicyRules, Refusal
from relay.machine import RelayStartError
from relay.processes import processes_check
from relay.shared_holdings import SharedHoldings
from tests.relay.expectations import refused
from tests.relay.fake_link import (
    RELAYED_HOST,
    FakeClient,
    World,
    credential_make,
    settings_make,
)
from tests.relay.tokens import THIRD_PARTY, TokenClient, token_make, world_make
from tests.turn_client import Method

PORTS = (50000, 50099)
OWN_HOST = "8.8.8.8"


@pytest.fixture
def config(tmp_path: Path) -> RelayConfig:
    rules = PeerPolicyRules(own_addresses=(OWN_HOST,), relay_ports=PORTS)
    return RelayConfig(
        node="node-1",
        listen_addresses=("127.0.0.1",),
        listen_port=3478,
        journal_directory=tmp_path,
        flush_interval_seconds=5,
        turn=settings_make(
            project_limits=ProjectLimits(allocations_max=3),
            relay_ports=PORTS,
            peer_rules=rules,
            mobility=False,
            third_party=THIRD_PARTY,
        ),
        processes=2,
    )


@pytest.fixture
def holdings() -> Iterator[SharedHoldings]:
    made = SharedHoldings(processes=2, allocations_max=100)
    yield made
    made.close()


@pytest.fixture
def worlds(config: RelayConfig, holdings: SharedHoldings) -> list[World]:
    made = []
    for process in range(2):
        view = copy.copy(holdings)
        view.enter(process)
        made.append(World(config.for_process(process).turn, holdings=view))
    return made


def client_of(world: World, project: str, port: int) -> FakeClient:
    return world.client(("192.0.2.7", port), credential_make(world.now, project=project))


def test_quota_counts_what_the_other_process_holds(worlds: list[World]) -> None:
    first, second = worlds
    mine = [client_of(first, "prj_a", port) for port in (1, 2)]
    for client in mine:
        client.allocate()
    client_of(second, "prj_a", 3).allocate()
    for world in worlds:
        with refused(486):
            client_of(world, "prj_a", 4).allocate()
        client_of(world, "prj_b", 5).allocate()
    (refusal,) = second.refusals_explain("crd_b", second.now)
    assert refusal.rule == "the project holds 3 of 3 allocations"
    mine[0].refresh(0)
    client_of(second, "prj_a", 6).allocate()
    second.pass_seconds(601)
    assert second.turn.table.entitlements.held_count("prj_a") == 0
    for port in (7, 8):
        client_of(first, "prj_a", port).allocate()
    with refused(486):
        client_of(second, "prj_a", 9).allocate()


def test_quota_of_a_credential_counts_in_both_processes(worlds: list[World]) -> None:
    for world in worlds:
        control = world.turn.control
        world.perform(control.credential_limit("prj_a", "crd_b", 4e9, world.now, allocations_max=1))
    client_of(worlds[0], "prj_a", 1).allocate()
    with refused(486):
        client_of(worlds[1], "prj_a", 2).allocate()


def test_new_access_token_is_counted_in_the_place_of_the_old_one(worlds: list[World]) -> None:
    first, second = worlds
    client = TokenClient(first)
    client.allocate()
    old, new = client.token, token_make(first.now + 1)
    client.token_take(new)
    client.refresh(600)
    for token in (old, new):
        control, credential = second.turn.control, token_credential(token)
        limited = control.credential_limit("prj_a", credential, 4e9, second.now, allocations_max=1)
        second.perform(limited)
    TokenClient(second, old, address=("192.0.2.7", 1)).allocate()
    with refused(486):
        TokenClient(second, new, address=("192.0.2.7", 2)).allocate()
    client.refresh(0)
    TokenClient(second, new, address=("192.0.2.7", 3)).allocate()


def test_new_access_token_that_cannot_be_counted_is_508_and_the_old_one_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holdings = SharedHoldings(processes=1, allocations_max=10)
    world = world_make(holdings)
    client = TokenClient(world)
    client.allocate()
    old = client.token
    client.token_take(token_make(world.now + 1))
    with monkeypatch.context() as full:
        full.setattr(holdings, "take", lambda *_: QuotaExceeded(True, 0, 0))
        with refused(508):
            client.refresh(600)
    client.token_take(old)
    assert client.refresh(600) == 600
    assert holdings.held("prj_a", token_credential(old)) == 1
    client.refresh(0)
    assert holdings.held("prj_a", token_credential(old)) == 0
    holdings.close()


def test_allocation_that_gets_no_port_is_counted_nowhere(worlds: list[World]) -> None:
    first, second = worlds
    first.ports_elsewhere = set(range(PORTS[0], PORTS[1] + 1))
    for port in range(5):
        with refused(508):
            client_of(first, "prj_a", port).allocate()
    for port in range(3):
        client_of(second, "prj_a", port).allocate()


def test_process_that_is_started_again_is_drained_as_the_others_are(
    config: RelayConfig, holdings: SharedHoldings, worlds: list[World]
) -> None:
    def successor() -> World:
        view = copy.copy(holdings)
        view.enter(0)
        return World(config.for_process(0).turn, holdings=view)

    first, second = worlds
    for world in worlds:
        world.perform(world.turn.control.drain(4e9, world.now))
    drained = successor()
    assert drained.turn.control.drain_ends_at == 4e9
    with refused(508):
        client_of(drained, "prj_a", 1).allocate()
    second.perform(second.turn.control.drain(None, second.now))
    assert successor().turn.control.is_draining
    assert successor().turn.control.drain_ends_at is None
    first.turn.control.undrain()
    client_of(successor(), "prj_a", 1).allocate()


def test_relayed_address_of_another_process_is_no_client(worlds: list[World]) -> None:
    first, second = worlds
    client = client_of(first, "prj_a", 1)
    port = client.port()
    inside = second.client((RELAYED_HOST, port))
    for method in (Method.BINDING, Method.ALLOCATE):
        with refused(0):
            inside.exchange(method)
    assert second.turn.dropped["relayed address as client"] == 6
    inside.transport = "tcp"  # a port of the same number, and somebody else's
    inside.binding()
    inside.transport = "udp"
    client.refresh(0)
    inside.binding()


def test_processes_divide_the_ports_and_know_the_whole_range(
    config: RelayConfig, worlds: list[World]
) -> None:
    slices = [config.for_process(process).turn.relay_ports for process in range(2)]
    assert slices == [(50000, 50049), (50050, 50099)]
    for world, (low, high) in zip(worlds, slices, strict=True):
        relayed = client_of(world, "prj_a", 1).port()
        assert low <= relayed <= high
        policy = world.turn.table.policy
        for port in (*slices[0], *slices[1]):  # hairpin, to whichever process
            assert policy.refusal(host_pack(OWN_HOST), port) is None
        for port in (PORTS[0] - 1, PORTS[1] + 1):
            assert policy.refusal(host_pack(OWN_HOST), port) is Refusal.OWN_ADDRESS


def test_relay_that_is_alone_is_told_everything(config: RelayConfig) -> None:
    alone = replace(config, processes=1)
    assert alone.for_process(0) is alone


@pytest.mark.parametrize(
    ("change", "variable"),
    [
        ({"mobility": True}, "MINDMORE_TURN_MOBILITY=off"),
        ({"relay_ports": (50000, 50002)}, "MINDMORE_TURN_RELAY_PORTS"),
        ({"relay_ports": (50001, 50004)}, "MINDMORE_TURN_RELAY_PORTS"),
    ],
)
def test_what_cannot_work_with_several_processes_is_refused_in_one_line(
    config: RelayConfig, change: dict[str, object], variable: str
) -> None:
    processes_check(config)
    changed = replace(config, turn=replace(config.turn, **change))  # type: ignore[arg-type]
    with pytest.raises(RelayStartError, match=r"^MINDMORE_TURN_PROCESSES is 2[^\n]*$") as caught:
        processes_check(changed)
    assert variable in str(caught.value)
