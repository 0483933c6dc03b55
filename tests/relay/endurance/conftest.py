from __future__ import annotations

import json
import os
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import certificate_write
from tests.ports import free_port
from tests.relay.attacks.observe import descriptors
from tests.relay.endurance.door import Door
from tests.relay.interop.servers import HOST, ROOT, Server, server_running

BLOCKED_SECONDS_MAX = 0.05  # the number for the event loop
PATIENCE_SECONDS = 60.0
OPEN_FILES_SPARE = 8  # those of the control channel come and go
TIMES = int(os.environ.get("SOAK", "1"))  # how many times as long: `make soak`


@dataclass(frozen=True)
class Watched:
    """A relay, its door, and what watches its event loop."""

    server: Server
    door: Door

    @contextmanager
    def probing(self, what: str) -> Iterator[None]:
        """Meanwhile the event loop may never be blocked for too long."""
        words = [HOST, str(self.server.port), str(self.server.process.pid)]
        probe = subprocess.Popen(
            [sys.executable, "-m", "tests.relay.endurance.probe", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert probe.stdout is not None
        probe.stdout.readline()
        begin, done = time.monotonic(), False
        try:
            yield
            done = True
        finally:
            seconds = time.monotonic() - begin
            output, _ = probe.communicate(timeout=PATIENCE_SECONDS)
        assert done
        found = json.loads(output)
        say(what, seconds=seconds, **found)
        assert found["asked"] > 0
        blocked = found["blocked_seconds_max"]
        assert blocked < BLOCKED_SECONDS_MAX, f"the event loop was blocked for {blocked} s"

    def open_files(self) -> int:
        """How many files and sockets it has open."""
        return descriptors(self.server)

    def facts(self) -> dict[str, Any]:
        """What it holds just now."""
        return self.door.ask("facts")

    def until_empty(self, open_files: int) -> None:
        """Wait until it holds nothing: no allocation, port, connection, session or open file."""
        until(lambda: not any(self.facts().values()), self.facts)
        until(lambda: abs(self.open_files() - open_files) <= OPEN_FILES_SPARE, self.open_files)


def say(what: str, **numbers: object) -> None:
    """One line of measured numbers, for whoever reads the log."""
    words = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in numbers.items()
    ]
    sys.stdout.write(f"{what}: {', '.join(words)}\n")


def until(
    fact: Callable[[], bool], shown: Callable[[], object], seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, shown()
        time.sleep(0.02)


StartWatched = Callable[..., Watched]


@pytest.fixture
def relay_start(tmp_path: Path) -> Iterator[StartWatched]:
    """Starts a relay with a certificate as `relay_start(NAME=value)`, ends it after.

    Its relayed addresses are on an address of their own, of nobody else's: ten thousand ports would
    be missing elsewhere.
    """
    host = ".".join(map(str, (127, 200, *(1 + secrets.randbelow(250) for _ in range(2)))))
    chain, key = certificate_write(tmp_path, "turn.test")
    usual = {
        "MINDMORE_TURN_RELAY_ADDRESS": host,
        "MINDMORE_TURN_OTHER_ADDRESS": "",
        "MINDMORE_TURN_CUT_OFF_SECONDS": "0",  # there is no database here
        "MINDMORE_TURN_CERTIFICATE": str(chain),
        "MINDMORE_TURN_CERTIFICATE_KEY": str(key),
        "MINDMORE_TURN_TLS_PORT": str(free_port()),
    }
    with ExitStack() as stack:

        def start(*, lifetime_seconds: int = 0, **settings: object) -> Watched:
            changes = {f"MINDMORE_TURN_{name}": str(value) for name, value in settings.items()}
            if lifetime_seconds:
                changes["RELAY_LIFETIME_SECONDS"] = str(lifetime_seconds)
            server = stack.enter_context(server_running("door", tmp_path, {**usual, **changes}))
            return Watched(server, Door(str(server.port)))

        yield start


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """As many open files as this machine allows."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
