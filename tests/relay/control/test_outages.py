"""Two real relays miss nothing while Valkey, the database or they themselves are away."""

from __future__ import annotations

import signal
import time
from functools import partial

import pytest
from pytest_django import Settings

from relay.control.keys import STREAM
from relay.publishing import valkey
from tests.relay.control.fleet import (
    CAPACITY,
    REFUSED,
    Fleet,
    events,
    everywhere,
    has_said,
    log_lines,
    refused,
    revoke,
    wait_until,
)

pytestmark = [pytest.mark.xdist_group("fleet")]


def test_change_while_valkey_was_away_arrives_from_the_database_or_after_it_came_back_empty(
    fleet: Fleet,
) -> None:
    fleet.start()
    fleet.started()
    first, second, third = fleet.mint(), fleet.mint(), fleet.mint()
    revoke(fleet, first)
    wait_until(everywhere(fleet, first, REFUSED))
    fleet.valkey.kill()
    revoke(fleet, second)  # the row is there, nobody could be told
    wait_until(everywhere(fleet, second, REFUSED))
    fleet.valkey.start()
    assert fleet.valkey.client().exists(STREAM) == 0
    for server in fleet.relays.values():
        wait_until(partial(has_said, server, "control_found_again"))
    assert everywhere(fleet, first, REFUSED)()
    revoke(fleet, third)
    wait_until(everywhere(fleet, third, REFUSED))
    assert fleet.valkey.client().xlen(STREAM) == 1


@pytest.mark.parametrize("hangs", [False, True])
def test_cut_off_relay_keeps_its_calls_refuses_new_ones_and_recovers_by_itself(
    fleet: Fleet, *, hangs: bool
) -> None:
    fleet.start(CUT_OFF_SECONDS=1)
    fleet.started()
    credential = fleet.mint()
    # On a busy machine its start takes longer than the second after which it is cut off.
    wait_until(everywhere(fleet, credential, 0))
    with fleet.clients(credential) as clients:
        for client in clients:
            client.allocate()
        if hangs:
            fleet.valkey.signal(signal.SIGSTOP)
        else:
            fleet.valkey.kill()
        wait_until(everywhere(fleet, credential, CAPACITY))
        for client in clients:
            assert client.refresh(600) == 600
            client.permit(("127.0.0.1", 9))
        for server in fleet.relays.values():
            assert "control_cut_off" in events(server)
        if hangs:
            fleet.valkey.signal(signal.SIGCONT)
        else:
            fleet.valkey.start()
        wait_until(everywhere(fleet, credential, 0))
        for client in clients:
            assert client.refresh(600) == 600


def test_relay_without_a_limit_to_being_cut_off_takes_calls_for_ever(fleet: Fleet) -> None:
    fleet.valkey.kill()
    fleet.start(CUT_OFF_SECONDS=0)
    credential = fleet.mint()
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert everywhere(fleet, credential, 0)()
        time.sleep(0.2)
    assert all("control_lost" in events(server) for server in fleet.relays.values())


def test_killed_relay_knows_after_its_start_what_it_was_told(fleet: Fleet) -> None:
    fleet.start()
    fleet.started()
    told, said_meanwhile = fleet.mint(), fleet.mint()
    revoke(fleet, told)
    wait_until(everywhere(fleet, told, REFUSED))
    fleet.relays["node-a"].process.send_signal(signal.SIGKILL)
    fleet.relays["node-a"].process.wait()
    revoke(fleet, said_meanwhile)
    fleet.relay_start("node-a")
    wait_until(everywhere(fleet, told, REFUSED))
    wait_until(everywhere(fleet, said_meanwhile, REFUSED))
    other = fleet.mint()
    revoke(fleet, other)
    wait_until(everywhere(fleet, other, REFUSED))


def test_relay_starts_without_database_and_hears_of_everything_once_it_is_there(
    fleet: Fleet,
) -> None:
    before, heard = fleet.mint(), fleet.mint()
    revoke(fleet, before)
    fleet.database.shut()
    fleet.start(CUT_OFF_SECONDS=3)
    for server in fleet.relays.values():
        wait_until(partial(has_said, server, "control_lost"))
        lost = next(line for line in log_lines(server) if line["event"] == "control_lost")
        assert lost["what"] == "database"
    wait_until(lambda: len(fleet.alive()) == 2)
    revoke(fleet, heard)  # comes by the stream all the same
    wait_until(everywhere(fleet, heard, REFUSED))
    wait_until(everywhere(fleet, before, CAPACITY))  # its password is right, for all they know
    fleet.database.open()
    wait_until(everywhere(fleet, before, REFUSED))
    wait_until(everywhere(fleet, fleet.mint(), 0))
    assert everywhere(fleet, heard, REFUSED)()


def test_call_of_a_credential_revoked_before_the_relay_knew_ends_with_the_first_snapshot(
    fleet: Fleet,
) -> None:
    credential = fleet.mint()
    revoke(fleet, credential)
    fleet.database.shut()
    fleet.start(CUT_OFF_SECONDS=0)
    with fleet.clients(credential) as clients:
        for client in clients:
            client.allocate()
            assert client.refresh(600) == 600
        fleet.database.open()
        for client in clients:
            wait_until(partial(refused, client))


def test_relay_starts_without_valkey_and_recovers_by_itself(fleet: Fleet) -> None:
    credential = fleet.mint()
    fleet.valkey.kill()
    fleet.start(CUT_OFF_SECONDS=1)
    wait_until(everywhere(fleet, credential, CAPACITY))
    fleet.valkey.start()
    wait_until(everywhere(fleet, credential, 0))
    revoke(fleet, credential)
    wait_until(everywhere(fleet, credential, REFUSED))


def test_publication_that_failed_is_made_up_for_from_the_database(
    fleet: Fleet, settings: Settings
) -> None:
    fleet.start()
    fleet.started()
    credential = fleet.mint()
    assert everywhere(fleet, credential, 0)()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"  # ours alone is away; the relays see theirs
    valkey.cache_clear()
    revoke(fleet, credential)
    assert fleet.valkey.client().exists(STREAM) == 0
    wait_until(everywhere(fleet, credential, REFUSED))


def test_later_publication_shows_that_one_is_missing(fleet: Fleet, settings: Settings) -> None:
    fleet.start()
    fleet.started()
    lost, published = fleet.mint(), fleet.mint()
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    valkey.cache_clear()
    revoke(fleet, lost)
    settings.REDIS_URL = fleet.valkey.url
    valkey.cache_clear()
    revoke(fleet, published)
    wait_until(everywhere(fleet, published, REFUSED))
    wait_until(everywhere(fleet, lost, REFUSED))


def test_relay_that_was_stopped_while_the_stream_was_trimmed_misses_nothing(fleet: Fleet) -> None:
    fleet.start()
    fleet.started()
    credential = fleet.mint()
    for server in fleet.relays.values():
        server.process.send_signal(signal.SIGSTOP)
    revoke(fleet, credential)
    fleet.valkey.client().xtrim(STREAM, maxlen=0, approximate=False)
    for server in fleet.relays.values():
        server.process.send_signal(signal.SIGCONT)
    wait_until(everywhere(fleet, credential, REFUSED))
