"""`manage.py runrelay` before anybody is served: what it refuses, and in which words."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from relay.management.commands import runrelay


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been started."""
    starts: list[str] = []
    monkeypatch.setattr(runrelay, "run", lambda *_: starts.append("one"))
    monkeypatch.setattr(runrelay, "run_processes", lambda *_: starts.append("several"))
    return starts


@pytest.mark.parametrize(("processes", "start"), [(1, "one"), (2, "several")])
def test_relayed_address_of_another_host_stops_the_start(
    settings: Settings, started: list[str], processes: int, start: str
) -> None:
    settings.TURN_PROCESSES = processes
    settings.TURN_RELAY_ADDRESSES = ["192.0.2.1"]
    with pytest.raises(
        CommandError, match=r"^cannot open .* 192\.0\.2\.1 .*set MINDMORE_TURN_RELAY_ADDRESS"
    ):
        call_command("runrelay")
    assert started == []
    settings.TURN_RELAY_ADDRESSES = ["127.0.0.1"]
    call_command("runrelay")
    assert started == [start]


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0"])
def test_metrics_at_the_port_of_clients_stop_the_start(
    settings: Settings, started: list[str], listening: str
) -> None:
    settings.TURN_LISTEN_ADDRESSES = [listening]
    settings.TURN_RELAY_ADDRESSES = ["127.0.0.1"]
    settings.TURN_METRICS_ADDRESS = "127.0.0.1"
    settings.TURN_METRICS_PORT = settings.TURN_PORT
    with pytest.raises(CommandError, match=r"^MINDMORE_TURN_METRICS_PORT is \d+, .*set it to"):
        call_command("runrelay")
    assert started == []
    settings.TURN_METRICS_PORT = settings.TURN_PORT + 1
    call_command("runrelay")
    assert started == ["one"]
