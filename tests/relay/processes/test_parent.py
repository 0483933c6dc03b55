"""The parent: passes signals on, starts again what crashed, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ports import free_port
from tests.stack import wait_until_gone

ROOT = Path(__file__).resolve().parents[3]
PROBE = "tests.relay.processes.parent_probe"
PATIENCE_SECONDS = 30.0


class Parent:
    """A running parent, and what it and its processes say."""

    def __init__(self, *behaviours: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", PROBE, str(free_port()), *behaviours],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def line(self, words: str, nth: int = 1) -> list[str]:
        """The words of the nth line that begins so, once it is there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = [line for line in self.lines if line.startswith(words)]
            if len(found) >= nth:
                return found[nth - 1].split()
            time.sleep(0.01)
        raise AssertionError(f"no line {nth} with {words!r}: {self.lines}")

    def event(self, name: str, nth: int) -> None:
        """Wait until its log has told of something so often."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sum(f'"event": "{name}"' in line for line in self.lines) < nth:
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.01)

    def pid(self, number: int, nth: int = 1) -> int:
        """The pid of a process that serves."""
        return int(self.line(f"{number} serves", nth)[2])

    def end(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self.reader.join(PATIENCE_SECONDS)
        return code

    def close(self) -> None:
        """Leave nothing behind, whatever the test did."""
        for child in children(self.process.pid):
            child.kill()
        self.process.kill()
        for orphan in self.orphans():
            orphan.kill()
        self.end()
        assert self.process.stdout
        self.process.stdout.close()

    def orphans(self) -> list[psutil.Process]:
        """What its processes left behind, where the test failed: they would hold our pipe."""
        said = self.process.args
        return [
            found
            for found in psutil.process_iter(["ppid", "cmdline"])  # without those that vanish
            if found.info["ppid"] == 1 and found.info["cmdline"] == said
        ]


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def started() -> Iterator[list[Parent]]:
    parents: list[Parent] = []
    yield parents
    for parent in parents:
        parent.close()


@pytest.fixture
def parent(started: list[Parent]) -> Parent:
    started.append(Parent("serves", "serves"))
    for number in range(2):
        started[0].pid(number)
    return started[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_reaches_every_process_and_the_parent_waits_for_it(
    parent: Parent, number: signal.Signals
) -> None:
    parent.process.send_signal(number)
    assert parent.end() == 0
    assert {line for line in parent.lines if "stops" in line} == {
        f"{number} stops {parent.pid(number)}" for number in range(2)
    }


def test_hangup_reaches_every_process_and_ends_none(parent: Parent) -> None:
    for turn in (1, 2):
        parent.process.send_signal(signal.SIGHUP)
        for number in range(2):
            assert int(parent.line(f"{number} reloads", turn)[2]) == parent.pid(number)
    assert parent.process.poll() is None


def test_hangup_waits_for_a_process_that_is_still_starting(started: list[Parent]) -> None:
    started.append(Parent("serves", "is slow to start"))
    parent = started[0]
    parent.pid(0)
    parent.line("1 starts")
    parent.process.send_signal(signal.SIGHUP)
    assert int(parent.line("1 reloads")[2]) == parent.pid(1)
    assert parent.process.poll() is None


def test_killed_parent_leaves_no_orphan(parent: Parent) -> None:
    processes = [psutil.Process(parent.pid(number)) for number in range(2)]
    parent.process.kill()
    assert wait_until_gone(processes, PATIENCE_SECONDS) == []
    parent.end()
    for number in range(2):  # they were asked, and ended as they do
        parent.line(f"{number} stops")


def test_process_that_hangs_does_not_outlive_a_killed_parent(started: list[Parent]) -> None:
    started.append(Parent("is stubborn", "is stubborn"))
    processes = [psutil.Process(started[0].pid(number)) for number in range(2)]
    started[0].process.kill()
    assert wait_until_gone(processes, PATIENCE_SECONDS) == []


def test_killed_process_is_replaced_and_takes_over_its_sockets(parent: Parent) -> None:
    os.kill(parent.pid(1), signal.SIGKILL)
    replaced = parent.line("1 serves", 2)
    assert replaced[2] != str(parent.pid(1))
    assert replaced[3] == parent.line("1 serves")[3]  # the very socket, by its inode
    assert replaced[3] != parent.line("0 serves")[3]
    assert [line for line in parent.lines if line.startswith("0 ")] == [
        " ".join(parent.line("0 serves"))
    ]
    (event,) = [line for line in parent.lines if "relay_process_ended" in line]
    assert "was killed by SIGKILL" in event
    parent.process.terminate()
    assert parent.end() == 0


def test_crash_is_told_without_its_message_and_tried_again_ever_later(
    started: list[Parent],
) -> None:
    started.append(Parent("serves", "crashes"))
    parent = started[0]
    parent.line("1 crashes", 3)
    parent.event("relay_process_ended", 3)
    assert "KeyError" in "\n".join(parent.lines)
    assert "secret words" not in "\n".join(parent.lines)
    parent.pid(0)
    parent.process.terminate()
    assert parent.end() == 0
    assert len([line for line in parent.lines if line.startswith("0 serves")]) == 1


def test_process_that_somebody_else_ended_is_replaced_and_takes_over_its_sockets(
    parent: Parent,
) -> None:
    os.kill(parent.pid(1), signal.SIGTERM)
    replaced = parent.line("1 serves", 2)
    assert replaced[3] == parent.line("1 serves")[3]  # the very socket, by its inode
    (event,) = [line for line in parent.lines if "relay_process_ended" in line]
    assert "was told to end by somebody else" in event
    parent.process.terminate()
    assert parent.end() == 0
    assert len([line for line in parent.lines if line.startswith("0 serves")]) == 1


def test_process_that_ends_by_itself_is_tried_again_until_all_are_told_to_end(
    started: list[Parent],
) -> None:
    started.append(Parent("serves", "ends well"))
    parent = started[0]
    parent.line("1 ends", 3)
    parent.pid(0)
    parent.process.terminate()
    assert parent.end() == 0


def test_process_that_cannot_start_ends_all_with_its_reason_once(started: list[Parent]) -> None:
    started.append(Parent("serves", "cannot start", "cannot start"))
    parent = started[0]
    assert parent.end() == 1
    told = [line for line in parent.lines if "cannot start" in line]
    assert told == ["RelayStartError this relay cannot start: set something"]


def test_process_that_does_not_end_is_killed(started: list[Parent]) -> None:
    started.append(Parent("serves", "is stubborn"))
    parent = started[0]
    processes = [psutil.Process(parent.pid(number)) for number in range(2)]
    parent.process.terminate()
    assert parent.end() == 1
    assert wait_until_gone(processes, PATIENCE_SECONDS) == []
    assert parent.line("RelayFailedError process 1 was killed by SIGKILL")
