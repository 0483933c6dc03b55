"""Several processes of one relay: one scrape shows all, whichever of them is asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.relay.watching.conftest import StartRelay
from tests.relay.watching.scrape import Scrape, Watched, until
from tests.turn_client import TurnClient

PROCESSES = 2
CLIENTS = 24


@pytest.fixture
def relay(relay_start: StartRelay) -> Iterator[Watched]:
    yield relay_start(PROCESSES=PROCESSES, MOBILITY="off")


def pid_of(relay: Watched, event: str, process: int) -> int:
    """Of the process that was the last to log this."""
    return int(
        [
            line
            for line in relay.events()
            if (line["event"], line.get("process")) == (event, process)
        ][-1]["pid"]
    )


def serves(relay: Watched) -> Scrape:
    """A scrape; nothing where nobody has the port just now."""
    try:
        return relay.scrape()
    except OSError:
        return Scrape("")


def all_are_up(now: Scrape) -> bool:
    return bool(now.values) and now("up") == PROCESSES


def test_one_scrape_is_the_sum_of_what_the_clients_of_all_processes_counted(
    relay: Watched,
) -> None:
    until(lambda: serves(relay), all_are_up)
    with ExitStack() as stack:
        sent = 0
        for number in range(CLIENTS):  # each from a network of its own
            client = stack.enter_context(
                TurnClient(
                    relay.server.address,
                    *relay.server.credential(),
                    local=(f"127.0.{number}.77", 0),
                )
            )
            client.allocate()
            client.permit(("127.0.0.1", 0))
            sent += sum(client.sent[1:])
        now = relay.until(lambda now: now("allocations") == CLIENTS)
        parts = [now("allocations", process=str(number)) for number in range(PROCESSES)]
        assert sum(parts) == CLIENTS
        assert all(parts), "every process has some"
        assert now("relayed_bytes_total", direction="from_client") == sent
        assert now("error_responses_total", method="allocate", code="401") == CLIENTS
        starts = [now("process_start_time_seconds", process=str(number)) for number in range(2)]
        assert all(start > 0 for start in starts)
        low, high = 49152, 65535
        assert now("ports", family="ipv4") == high - low + 1  # divided among them
        assert relay.health() == (200, {"status": "ok", "reasons": []})


@pytest.mark.parametrize("listens", [True, False])
def test_killed_process_is_missed_until_it_is_back(relay: Watched, *, listens: bool) -> None:
    until(lambda: serves(relay), all_are_up)
    [serving] = [line["process"] for line in relay.events() if line["event"] == "metrics_started"]
    killed = serving if listens else 1 - serving
    before = pid_of(relay, "relay_started", killed)
    os.kill(before, signal.SIGSTOP)  # neither alive nor dead: its sockets are still there
    if not listens:
        missed = until(lambda: serves(relay), lambda now: now("up") == PROCESSES - 1)
        assert missed("up", process=str(killed)) == 0
        status, found = relay.health()
        assert status == 503
        assert [each["process"] for each in found["reasons"]] == [killed]
    os.kill(before, signal.SIGKILL)
    until(lambda: serves(relay), all_are_up, seconds=30)
    assert pid_of(relay, "relay_started", killed) != before
    assert relay.health()[0] == 200
