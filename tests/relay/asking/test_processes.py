"""Reload, drain and asking where a relay is several processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from relay.asking import relays_alive
from relay.selectors import relays_live
from relay.services.relays import relays_drain, relays_undrain
from tests.relay.asking.rig import (
    PATIENCE_SECONDS,
    SECRETS,
    Installation,
    installation_running,
    refusal_code,
)
from tests.relay.transports.rig import until

PROCESSES = 2


@pytest.fixture
def relay(tmp_path: Path, channel: str) -> Iterator[Installation]:
    """One relay of two processes."""
    environment = {
        "REDIS_URL": channel,
        "MINDMORE_TURN_PROCESSES": str(PROCESSES),
        "MINDMORE_TURN_MOBILITY": "off",
    }
    with installation_running(tmp_path, environment) as running:
        assert until(lambda: len(relays_alive()) == PROCESSES, PATIENCE_SECONDS)
        yield running


def test_every_process_answers_reloads_and_drains(relay: Installation) -> None:
    live = relays_live()
    assert [str(origin) for origin in live.relays] == ["node-1", "node-1 (process 1)"]
    relay.configure(secrets=SECRETS["second"])
    lines = [relay.hang_up(), relay.said("configuration_reloaded", "configuration_kept")]
    assert {line["process"] for line in lines} == {0, 1}
    assert [line["changed"] for line in lines] == 2 * [["secrets"]]
    assert refusal_code(relay, "first") == 401
    assert refusal_code(relay, "second") == 0
    told = relays_drain()
    assert [done.is_done for done in told.relays.values()] == [True, True]
    assert refusal_code(relay, "second") == 508
    assert not relays_undrain().silent
    assert refusal_code(relay, "second") == 0


def test_process_that_is_started_again_during_a_drain_is_drained_too(relay: Installation) -> None:
    relays_drain()
    before = {origin.boot for origin in relays_alive()}
    worker, other = psutil.Process(relay.server.process.pid).children()
    worker.kill()
    assert until(
        lambda: len({origin.boot for origin in relays_alive()} - before) == 1, PATIENCE_SECONDS
    )
    statuses = relays_live().relays
    assert len(statuses) == PROCESSES
    assert all(status.is_draining for status in statuses.values())
    relays_undrain()
    other.kill()
    assert until(
        lambda: len({origin.boot for origin in relays_alive()} - before) == PROCESSES,
        PATIENCE_SECONDS,
    )
    assert not any(status.is_draining for status in relays_live().relays.values())


def test_ports_that_processes_have_divided_need_a_restart(relay: Installation) -> None:
    relay.configure(secrets=SECRETS["second"], relay_ports="31000-31999")
    line = relay.hang_up()
    assert line["event"] == "configuration_kept"
    assert "MINDMORE_TURN_RELAY_PORTS" in str(line["reason"])
    assert refusal_code(relay, "first") == 0


def test_process_that_is_started_again_has_what_the_others_reloaded(relay: Installation) -> None:
    relay.configure(secrets=SECRETS["second"])
    relay.hang_up()
    relay.said("configuration_reloaded")
    before = {origin.boot for origin in relays_alive()}
    workers = psutil.Process(relay.server.process.pid).children()
    assert len(workers) == PROCESSES
    for worker in workers:
        worker.kill()
    assert until(
        lambda: len({origin.boot for origin in relays_alive()} - before) == PROCESSES,
        PATIENCE_SECONDS,
    )
    assert refusal_code(relay, "first") == 401
    assert refusal_code(relay, "second") == 0
