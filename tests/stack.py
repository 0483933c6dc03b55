"""`manage.py up` as a person starts it, for tests that need the whole service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.homes import home_remove
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS_MAX = 60.0
END_SECONDS_MAX = 5.0
# What tests/embedded.py and pytest export is not for a service that starts by itself.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "DJANGO_", "MINDMORE_", "PYTEST_")

T = TypeVar("T")


class Stack:
    """One `manage.py up` with its own data directory and ports.

    Args:
        home: the data directory; need not exist.
        environment: settings that differ.
        prefix: a program to start it with.
        checkout: where the code is.
    """

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        checkout: Path = ROOT,
    ) -> None:
        self.home = home
        self.web_port = free_port()
        self.turn_port = free_port()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)},
            "MINDMORE_HOME": str(home),
            "MINDMORE_WEB_PORT": str(self.web_port),
            "MINDMORE_TURN_PORT": str(self.turn_port),
            "MINDMORE_TURN_METRICS_PORT": "0",  # several of them run at once
            **(environment or {}),
        }
        self.prefix = prefix
        self.checkout = checkout
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.reader: threading.Thread | None = None

    @property
    def web_url(self) -> str:
        """Where the dashboard is."""
        return f"http://localhost:{self.web_port}"

    @property
    def demo(self) -> dict[str, Any]:
        """What `demo.json` says."""
        demo: dict[str, Any] = json.loads((self.home / "demo.json").read_text())
        return demo

    @property
    def output(self) -> str:
        """Everything that was printed since the last start."""
        return "\n".join(self.lines)

    def start(self) -> None:
        """Start it and come back at once."""
        self.lines = []
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "manage.py", "up"],
            cwd=self.checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def start_and_wait(self) -> None:
        """Start it and come back when it says that all is ready."""
        self.start()
        self.wait_for_line("ready:", READY_SECONDS_MAX)

    def run_to_end(self, seconds_max: float = READY_SECONDS_MAX) -> int:
        """Start it where it can't start; returns the exit code."""
        self.start()
        return self.wait(seconds_max)

    def wait(self, seconds_max: float = END_SECONDS_MAX) -> int:
        """Wait for the end; returns the exit code."""
        assert self.process
        assert self.reader
        code = self.process.wait(seconds_max)
        self.reader.join(END_SECONDS_MAX)
        assert self.process.stdout
        self.process.stdout.close()
        return code

    def wait_for_line(self, words: str, seconds_max: float, *, after: int = 0) -> str:
        """The first line with these words among those `after` so many, once it is there."""
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            for line in self.lines[after:]:
                if words in line:
                    return line
            assert self.process
            assert self.process.poll() is None, self.output
            time.sleep(0.05)
        raise AssertionError(f"no line with {words!r} in {seconds_max} seconds:\n{self.output}")

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything below it."""
        assert self.process
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def asked(self, ask: Callable[[psutil.Process], T]) -> list[T]:
        """What `ask` says of each process that has not ended meanwhile, as backends do."""
        answers = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                answers.append(ask(process))
        return answers

    def child(self, word: str) -> psutil.Process:
        """The supervisor's child whose program or an argument of it is `word`."""
        assert self.process
        for child in psutil.Process(self.process.pid).children():
            if any(part.rpartition("/")[2] == word for part in child.cmdline()):
                return child
        raise AssertionError(f"no {word} among the children")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9 of the supervisor."""
        self.signal(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """End it if it runs, and remove its data."""
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait(END_SECONDS_MAX * 2)
            except subprocess.TimeoutExpired:
                self.kill()
        home_remove(self.home)

    def _read(self) -> None:
        assert self.process
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip())


def wait_until_gone(processes: Sequence[psutil.Process], seconds_max: float) -> list[str]:
    """Wait until none of `processes` runs; returns what is left (the dead don't count, even where
    nobody has taken note of their death yet).
    """
    deadline = time.monotonic() + seconds_max
    while True:
        left = [process for process in processes if _runs(process)]
        if not left or time.monotonic() > deadline:
            return [str(process) for process in left]
        time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
