"""Commands that ask running relays, where `$MINDMORE_HOME/env` is wrong by now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.relay.asking.rig import Installation, calling
from tests.relay.interop.servers import ROOT

BROKEN = {
    "no assignment": "KAPUTT\n",
    "wrong value": "MINDMORE_TURN_FAILURES_PER_MINUTE=x\n",
    "wrong secret": "MINDMORE_TURN_SECRETS=short\n",
}


def manage(*arguments: str, home: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """The command as an operator gives it: Valkey is named in the file only."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MINDMORE_") and name != "REDIS_URL"
    }
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**environment, "MINDMORE_HOME": str(home), **changes},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("broken", BROKEN.values(), ids=list(BROKEN))
def test_running_relays_are_asked_all_the_same(
    relays: list[Installation], channel: str, tmp_path: Path, broken: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "env").write_text(f"{broken}REDIS_URL={channel}\n")
    done = manage("relay_status", home=home)
    assert done.returncode == 0, done.stderr
    assert "node-1" in done.stdout
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert "REDIS_URL and DATABASE_URL only" in warning


def test_call_is_ended_and_reload_is_refused_by_the_relay_itself(
    relays: list[Installation], channel: str
) -> None:
    relay = relays[0]
    with calling(relay):
        listed = manage("relay_sessions", home=relay.server.home, REDIS_URL=channel)
        assert listed.returncode == 0
        relay.configure(node="node-1", failures_per_minute="x")
        session = listed.stdout.splitlines()[1].split()[0]
        ended = manage("relay_end", session, home=relay.server.home, REDIS_URL=channel)
        assert (ended.returncode, ended.stdout) == (0, f"{session} has ended\n")
    reloaded = manage("relay_reload", home=relay.server.home, REDIS_URL=channel)
    assert reloaded.returncode == 1
    assert "node-1  keeps what it has: MINDMORE_TURN_FAILURES_PER_MINUTE" in reloaded.stdout


@pytest.mark.parametrize("command", ["runrelay", "check"])
def test_other_commands_do_not_go_on_with_wrong_settings(tmp_path: Path, command: str) -> None:
    (tmp_path / "env").write_text(BROKEN["no assignment"])
    done = manage(command, home=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("correct it, or put # before it\n")


def test_wrong_address_of_valkey_is_refused(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("REDIS_URL=http://127.0.0.1\n")
    done = manage("relay_status", home=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("REDIS_URL is not of the form")
