"""The shell's commands, on two real relays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import Organisation, Project
from relay.asking import relays_alive
from relay.control.answers import Done, LiveRefusal, Origin, RelayStatus
from relay.core.policy import Refusal as PeerRule
from relay.management.commands import relay_drain, relay_explain
from relay.selectors.live import LiveRefusals, LiveStatus
from relay.services.relays import Told
from tests.relay.asking.rig import (
    CHANNEL,
    PATIENCE_SECONDS,
    SECRETS,
    Installation,
    calling,
    installation_running,
    ping,
    refusal_code,
)
from tests.relay.interop.servers import PROJECT, ROOT
from tests.relay.transports.rig import until
from tests.turn_client import TurnClient, TurnError

TIMES = 100
EFFECTIVE_SECONDS_MAX = 2.0


def run(command: str, *arguments: str) -> str:
    """What it prints, of a command that does what it should."""
    output = StringIO()
    call_command(command, *arguments, stdout=output, stderr=StringIO())
    return output.getvalue()


def run_json(command: str, *arguments: str) -> Any:
    return json.loads(run(command, *arguments, "--json"))


def fails(command: str, *arguments: str) -> tuple[int, str, str]:
    """Its exit code, what it says on standard error, and what it prints all the same."""
    output = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(command, *arguments, stdout=output, stderr=StringIO())
    return caught.value.returncode, str(caught.value), output.getvalue()


# --- sessions -------------------------------------------------------------------------------------
def test_sessions_of_both_relays_are_listed_without_addresses(relays: list[Installation]) -> None:
    with calling(relays[0]) as (first, _), calling(relays[1]):
        listed = run_json("relay_sessions")["sessions"]
        assert {session["node"] for session in listed} == {"node-1", "node-2"}
        (session,) = [session for session in listed if session["node"] == "node-1"]
        assert (session["project"], session["credential"]) == (PROJECT, "crd_test")
        assert (session["transport"], session["protocol"], session["peers"]) == ("udp", "udp", 1)
        assert session["peer_received_bytes"] == len("there and back")
        assert session["client_sent_bytes"] > session["peer_received_bytes"]
        assert abs(session["started_at"] - time.clock_gettime(time.CLOCK_REALTIME)) < 60
        assert 500 < session["ends_at"] - session["started_at"] < 700
        text = run("relay_sessions")
        port = first.socket.getsockname()[1]
        for said in (json.dumps(listed), text):
            assert "127.0.0.1" not in said
            assert str(port) not in said
        assert session["session"] in text


def test_addresses_are_shown_to_who_asks_for_them(relays: list[Installation]) -> None:
    with relays[0].server.client() as client:
        relayed = client.allocate()
        host, port = client.socket.getsockname()
        (session,) = run_json("relay_sessions", "--addresses")["sessions"]
        assert session["client"] == f"{host}:{port}"
        assert session["relayed"] == f"{relayed[0]}:{relayed[1]}"
        assert f"{host}:{port}" in run("relay_sessions", "--addresses")


def test_columns_of_the_table_are_aligned(relays: list[Installation]) -> None:
    with calling(relays[0]), calling(relays[1]), relays[1].server.client() as third:
        third.allocate()
        heading, *rows = run("relay_sessions").splitlines()
        assert len(rows) == 3
        for name in ("PROJECT", "CREDENTIAL", "VIA"):
            assert {row[heading.index(name) - 1] for row in rows} == {" "}
            assert " " not in {row[heading.index(name)] for row in rows}
        end = heading.index("PEERS") + len("PEERS")
        assert all(row[:end].rstrip()[-1].isdigit() and len(row) == end for row in rows)


@pytest.mark.django_db
def test_sessions_can_be_those_of_a_project_or_a_label(
    relays: list[Installation], organisation: Organisation
) -> None:
    Project.objects.create(organisation=organisation, name="Calls", public_id=PROJECT)
    other = Project.objects.create(organisation=organisation, name="Others")
    with calling(relays[0]):
        assert len(run_json("relay_sessions", "--project", PROJECT)["sessions"]) == 1
        assert not run_json("relay_sessions", "--project", other.public_id)["sessions"]
        assert len(run_json("relay_sessions", "--label", "test")["sessions"]) == 1
        assert not run_json("relay_sessions", "--label", "tes")["sessions"]
        code, reason, _ = fails("relay_sessions", "--project", "prj_unknown")
        assert (code, "prj_unknown" in reason) == (1, True)


# --- end ------------------------------------------------------------------------------------------
def test_ended_session_is_over_and_the_others_go_on(relays: list[Installation]) -> None:
    with calling(relays[0]) as (first, _), calling(relays[1]) as (second, peer):
        (session,) = [
            session["session"]
            for session in run_json("relay_sessions")["sessions"]
            if session["node"] == "node-1"
        ]
        assert session in run("relay_end", session)
        with pytest.raises(TurnError) as ended:
            first.refresh(600)
        assert ended.value.code == 437
        ping(second, peer)
        code, reason, _ = fails("relay_end", session)
        assert (code, "does not live" in reason) == (1, True)
        assert len(run_json("relay_sessions")["sessions"]) == 1


@pytest.mark.parametrize("name", ["", "node-1", "node-1/ab", "node-1/ab/", "node-1/ab/x", "//1"])
def test_what_is_no_session_is_refused_with_an_example(name: str) -> None:
    code, reason, _ = fails("relay_end", name)
    assert code == 1
    assert "node-1/5f0c9a7e1b2d3c4f/17" in reason


@pytest.mark.django_db
def test_session_of_a_relay_that_is_gone_is_said_to_be_so(relays: list[Installation]) -> None:
    code, reason, _ = fails("relay_end", "node-9/ab/1")
    assert code == 1
    assert "no relay is called node-9" in reason
    code, reason, _ = fails("relay_end", "node-1/ab/1")
    assert code == 1
    assert "node-1 does not run with that boot any more" in reason


# --- revoke ---------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_revoked_credential_ends_its_calls_and_is_refused(
    relays: list[Installation], organisation: Organisation
) -> None:
    Project.objects.create(organisation=organisation, name="Calls", public_id=PROJECT)
    server, label = relays[0].server, "crd_" + "a" * 16
    with TurnClient(server.address, *server.credential("a" * 16)) as client:
        client.allocate()
        assert "is revoked" in run("relay_revoke", label, "--project", PROJECT)
        until(lambda: not run_json("relay_sessions")["sessions"], EFFECTIVE_SECONDS_MAX)
        with pytest.raises(TurnError) as ended:
            client.allocate()
        assert ended.value.code == 401
    code, reason, _ = fails("relay_revoke", "crd_x", "--project", PROJECT)
    assert code == 1
    assert "crd_" in reason
    code, reason, _ = fails("relay_revoke", label, "--project", "prj_unknown")
    assert (code, "prj_unknown" in reason) == (1, True)


@pytest.mark.parametrize("label", ["", " ", "x" * 600, "\x01"])
def test_what_is_no_label_is_refused_and_no_relay_asked(
    relays: list[Installation], label: str
) -> None:
    for command in (["relay_explain", label], ["relay_sessions", "--label", label]):
        code, reason, _ = fails(*command)
        assert code == 1
        assert "that is no label" in reason


# --- drain ----------------------------------------------------------------------------------------
def test_live_call_goes_on_through_a_drain_and_then_ends_it(relays: list[Installation]) -> None:
    with calling(relays[0]) as (client, peer):
        assert "1 session left" in run("relay_drain", "--node", "node-1")
        assert refusal_code(relays[0]) == 508
        assert refusal_code(relays[1]) == 0
        ping(client, peer)
        client.bind(CHANNEL, peer.getsockname())
        assert client.refresh(600) == 600
        status = {relay["node"]: relay for relay in run_json("relay_status")["relays"]}
        assert status["node-1"]["is_draining"]
        assert not status["node-2"]["is_draining"]
        assert "draining" in run("relay_status")
        waited: list[str] = []
        waiting = threading.Thread(
            target=lambda: waited.append(run("relay_drain", "--node", "node-1", "--wait"))
        )
        waiting.start()
        ping(client, peer)
        client.refresh(0)
        waiting.join(PATIENCE_SECONDS)
        assert waited[0].splitlines()[-1] == "drained"
    relays[0].said("relay_drained")
    assert "drained" in run("relay_status")
    assert refusal_code(relays[0]) == 508
    assert "takes new allocations again" in run("relay_drain", "--node", "node-1", "--undo")
    assert refusal_code(relays[0]) == 0


def test_drain_of_all_ends_what_is_left_at_its_deadline(relays: list[Installation]) -> None:
    with calling(relays[0]) as (first, peer), calling(relays[1]) as (second, _):
        run("relay_drain", "--all", "--deadline-seconds", "3600")
        ping(first, peer)
        said = run("relay_drain", "--all", "--deadline-seconds", "1", "--wait")
        assert said.splitlines()[-1] == "drained; 2 sessions ended by the deadline"
        for client in (first, second):
            with pytest.raises(TurnError) as ended:
                client.refresh(600)
            assert ended.value.code == 437
    for relay in relays:
        assert refusal_code(relay) == 508


def test_relay_that_was_started_anew_is_not_taken_for_drained(
    channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, another = (
        Origin(*words) for words in (("n-1", 0, "a"), ("n-1", 0, "b"), ("n", 0, "c"))
    )
    status = RelayStatus(0.0, 1, 1, (), True, None, 0, 0.0, "", {}, {}, {})
    opened = replace(status, is_draining=False)
    looks = [
        LiveStatus({old: status, another: opened}, ()),
        LiveStatus({new: opened, another: opened}, ()),
    ]
    monkeypatch.setattr(relay_drain, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(relay_drain, "relays_live", lambda: looks.pop(0))
    told = Told({old: Done(True, "", (), 1)}, ())
    monkeypatch.setattr(relay_drain, "relays_drain", lambda **_: told)
    code, reason, said = fails("relay_drain", "--node", "n-1", "--wait")
    assert (code, reason) == (
        1,
        "n-1 was started anew and takes new allocations: drain it again",
    )
    assert "1 session left" in said
    assert looks == []


def test_wait_for_a_relay_that_is_killed_and_started_anew_does_not_end_as_drained(
    relays: list[Installation], tmp_path: Path, channel: str
) -> None:
    output = StringIO()
    ends: list[CommandError] = []

    def drain() -> None:
        try:
            call_command("relay_drain", "--node", "node-1", "--wait", stdout=output)
        except CommandError as error:
            ends.append(error)

    with relays[0].server.client() as client:
        client.allocate()
        waiting = threading.Thread(target=drain)
        waiting.start()
        assert until(lambda: "1 session left" in output.getvalue(), PATIENCE_SECONDS)
        relays[0].server.process.kill()
        relays[0].server.process.wait()
        with installation_running(tmp_path / "anew", {"REDIS_URL": channel}, node="node-1"):
            waiting.join(3 * PATIENCE_SECONDS)
    (end,) = ends
    assert end.returncode == 1
    assert str(end) == "node-1 was started anew and takes new allocations: drain it again"


def test_relay_that_was_opened_meanwhile_is_not_taken_for_started_anew(
    channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Origin("n-1", 0, "a")
    opened = RelayStatus(0.0, 1, 1, (), False, None, 0, 0.0, "", {}, {}, {})
    monkeypatch.setattr(relay_drain, "relays_live", lambda: LiveStatus({origin: opened}, ()))
    told = Told({origin: Done(True, "", (), 1)}, ())
    monkeypatch.setattr(relay_drain, "relays_drain", lambda **_: told)
    code, reason, _ = fails("relay_drain", "--node", "n-1", "--wait")
    assert (code, reason) == (1, "n-1 takes new allocations again")


@pytest.mark.parametrize(
    ("which", "undo"), [(("--node", "node-1"), "--node node-1"), (("--all",), "--all")]
)
def test_interrupted_wait_says_that_the_drain_goes_on(
    channel: str, monkeypatch: pytest.MonkeyPatch, which: tuple[str, ...], undo: str
) -> None:
    def interrupted() -> LiveStatus:
        raise KeyboardInterrupt

    told = Told({Origin("node-1", 0, "a"): Done(True, "", (), 1)}, ())
    monkeypatch.setattr(relay_drain, "relays_drain", lambda **_: told)
    monkeypatch.setattr(relay_drain, "relays_live", interrupted)
    code, reason, _ = fails("relay_drain", *which, "--wait")
    assert code == 130
    assert reason == f"the drain goes on; `relay_drain {undo} --undo` takes it back"


@pytest.mark.parametrize("arguments", [(), ("--undo",), ("--all", "--node", "node-1")])
def test_drain_is_told_which_relays_are_meant(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    for name in ("relays_drain", "relays_undrain"):
        monkeypatch.setattr(relay_drain, name, lambda **_: pytest.fail("it was told"))
    reason = fails("relay_drain", *arguments)[1]
    assert "--node" in reason
    assert "--all" in reason


@pytest.mark.parametrize("command", ["relay_drain", "relay_reload"])
def test_relay_that_there_is_not_is_said_to_be_so(
    relays: list[Installation], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("relay.asking.ANSWER_SECONDS", 0.2)
    code, reason, _ = fails(command, "--node", "nope")
    assert (code, reason) == (1, "no relay is called nope; there are: node-1, node-2")


def test_refused_call_of_a_drain_is_explained(relays: list[Installation]) -> None:
    run("relay_drain", "--all")
    assert refusal_code(relays[0]) == 508
    (refusal,) = run_json("relay_explain", "test")["refusals"]
    assert (refusal["node"], refusal["code"], refusal["method"]) == ("node-1", 508, "Allocate")
    assert "drained" in refusal["rule"]
    assert "drained" in run("relay_explain", "crd_test")


def test_young_relay_does_not_claim_to_know_what_was_before_it(
    relays: list[Installation], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run("relay_explain", "somebody else")
    assert said.count("only, and remembers nothing from before") == len(relays)
    assert "node-1 has run for " in said
    assert "15 minutes" not in said
    monkeypatch.setattr(relay_explain, "KEPT_SECONDS", 0)
    said = run("relay_explain", "somebody else")
    assert "remembers nothing" not in said
    assert "nothing was refused to it in the last " in said


def test_refusals_that_are_alike_are_one_row_with_their_number(
    channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Origin("node-1", 0, "a")
    peer = LiveRefusal(
        100.0, "prj_a", "crd_b", "CreatePermission", 403, PeerRule.SPECIAL_PURPOSE.value
    )
    full = LiveRefusal(101.0, "prj_a", "crd_b", "Allocate", 486, "the project holds 1 of 1")
    refusals = [(origin, refusal) for refusal in (peer, full, peer._replace(occurred_at=102.0))]
    status = RelayStatus(0.0, 1, 1, (), False, None, 0, 0.0, "", {}, {}, {})
    monkeypatch.setattr(relay_explain, "relays_live", lambda: LiveStatus({origin: status}, ()))

    def explained(some: list[tuple[Origin, LiveRefusal]]) -> list[str]:
        live = LiveRefusals(some, (origin,), ())
        monkeypatch.setattr(relay_explain, "refusals_live", lambda **_: live)
        return run("relay_explain", "crd_b").splitlines()

    _, *rows, advice = explained(refusals)
    cells = [row.split() for row in rows]
    assert [(each[1], each[2], each[5]) for each in cells] == [
        ("00:01:41", "1", "Allocate"),
        ("00:01:42", "2", "CreatePermission"),
    ]
    assert "MINDMORE_TURN_ALLOWED_PEERS" in advice
    assert "MINDMORE" not in "".join(explained([(origin, full)]))


@pytest.mark.parametrize("arguments", [("--undo", "--wait"), ("--undo", "--deadline-seconds", "1")])
def test_orders_that_contradict_themselves_are_refused(arguments: tuple[str, ...]) -> None:
    assert fails("relay_drain", "--all", *arguments)[0] == 1


@pytest.mark.parametrize("seconds", ["-1", "soon", "99999999"])
def test_deadline_is_a_number_of_seconds(seconds: str) -> None:
    assert "--deadline-seconds" in fails("relay_drain", "--all", f"--deadline-seconds={seconds}")[1]


# --- reload ---------------------------------------------------------------------------------------
def test_reload_says_what_each_relay_made_of_it(relays: list[Installation]) -> None:
    first, second = relays
    first.configure(node="node-1", secrets=f"{SECRETS['second']},{SECRETS['first']}")
    second.configure(node="node-2", denied_peers="everything")
    code, reason, said = fails("relay_reload")
    assert (code, reason) == (1, "not done by node-2")
    lines = said.splitlines()
    assert lines[0] == "node-1  reloaded: secrets"
    assert lines[1].startswith("node-2  keeps what it has: MINDMORE_TURN_DENIED_PEERS")
    assert refusal_code(first, "second") == 0
    assert refusal_code(second, "first") == 0
    assert "a newer one was refused: MINDMORE_TURN_DENIED_PEERS" in run("relay_status")
    second.configure(node="node-2")
    assert run("relay_reload", "--node", "node-2") == "node-2  reloaded: nothing had changed\n"
    assert "refused" not in run("relay_status")


def test_what_relays_are_told_is_in_effect_within_two_seconds(
    relays: list[Installation],
) -> None:
    seconds: dict[str, list[float]] = {"relay_drain": [], "relay_undo": [], "relay_reload": []}
    with calling(relays[0]) as (client, peer):
        for number in range(TIMES):
            new, old = ("second", "first")[:: 1 if number % 2 else -1]
            for name, relay in zip(("node-1", "node-2"), relays, strict=True):
                relay.configure(node=name, secrets=SECRETS[new])
            relay = relays[number % len(relays)]
            seconds["relay_reload"].append(timed("relay_reload"))
            assert [refusal_code(relay, secret) for secret in (new, old)] == [0, 401]
            seconds["relay_drain"].append(timed("relay_drain", "--all"))
            assert refusal_code(relay, new) == 508
            seconds["relay_undo"].append(timed("relay_drain", "--all", "--undo"))
            assert refusal_code(relay, new) == 0
            ping(client, peer)
    for taken in seconds.values():
        assert sorted(taken)[TIMES * 99 // 100 - 1] <= EFFECTIVE_SECONDS_MAX


def timed(command: str, *arguments: str) -> float:
    """How long it took until every relay had done it."""
    began = time.monotonic()
    run(command, *arguments)
    return time.monotonic() - began


# --- who does not answer --------------------------------------------------------------------------
def test_relay_that_does_not_answer_is_named(relays: list[Installation]) -> None:
    with calling(relays[0]):
        relays[1].server.process.kill()
        relays[1].server.process.wait()
        code, reason, said = fails("relay_sessions", "--json")
        assert code == 3
        assert "no answer from node-2" in reason
        document = json.loads(said)
        assert [relay["node"] for relay in document["silent"]] == ["node-2"]
        assert len(document["sessions"]) == 1
        # A key of who is gone does not outlive him by long.
        assert until(lambda: len(relays_alive()) == 1, PATIENCE_SECONDS)
        assert run_json("relay_sessions")["silent"] == []


def test_relay_that_was_stopped_is_not_waited_for(relays: list[Installation]) -> None:
    relays[1].server.stop()
    assert run_json("relay_status")["silent"] == []


@pytest.mark.parametrize(
    "command",
    [
        ("relay_sessions",),
        ("relay_status",),
        ("relay_drain", "--all"),
        ("relay_reload",),
        ("relay_reload", "--node", "node-1"),
    ],
)
def test_without_a_relay_the_error_says_what_to_do(
    channel: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.asking.ANSWER_SECONDS", 0.2)
    code, reason, _ = fails(*command)
    assert code == 1
    assert "make run" in reason
    assert "REDIS_URL" in reason


def test_without_valkey_the_error_says_what_to_do(tmp_path: Path) -> None:
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:9/0"}
    command = [sys.executable, "manage.py", "relay_sessions"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("CommandError: Valkey does not answer")
    assert len(done.stderr.splitlines()) == 1


def test_exit_code_says_that_a_relay_was_silent(relays: list[Installation], channel: str) -> None:
    relays[1].server.process.kill()
    relays[1].server.process.wait()
    command = [sys.executable, "manage.py", "relay_status"]
    environment = {**os.environ, "REDIS_URL": channel}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "node-1" in done.stdout
    assert "node-2" in done.stderr
