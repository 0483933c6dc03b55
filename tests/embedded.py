"""A pytest plugin: real PostgreSQL and Valkey for the tests, gone when pytest is.

Loaded by `-p tests.embedded` (pyproject.toml). It starts both in a temporary directory before
Django's settings are read, and exports their addresses and fresh secrets. Where `DATABASE_URL` or
`REDIS_URL` are set those are used: by the workers of `pytest -n`, or with servers of your own.
Relays run as Python, also where they are compiled; `-p tests.compiled` has it the other way round.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from mindmore.embedded.postgres import Postgres, postgres_prepare
from mindmore.embedded.valkey import Valkey, valkey_prepare
from mindmore.processes import spawn
from relay import compiled

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10
# Waits until pytest is gone, however it went; twice, as a server may just be writing.
REMOVER = 'cat >/dev/null; rm -rf "$1"; sleep 3; rm -rf "$1"'


class Embedded:
    """The servers that this run started, and their directory."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="mindmore-tests-"))
        self.base.chmod(0o711)  # so that root's PostgreSQL, which is `nobody`, can pass through
        self.home = self.base / "home"
        self.home.mkdir(mode=0o711)
        (self.home / "static").mkdir()
        self.children: list[tuple[subprocess.Popen[bytes], signal.Signals]] = []
        self.remover = subprocess.Popen(
            ["/bin/sh", "-c", REMOVER, "remover", str(self.base)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def start(self, server: Postgres | Valkey) -> str:
        """Start `server`, wait until it answers, return its URL."""
        log = self.base / f"{server.command.name}.log"
        with log.open("wb") as output:
            child = spawn(server.command, output=output.fileno())
        self.children.append((child, server.command.end_signal))
        deadline = time.monotonic() + START_SECONDS_MAX
        while not server.is_ready():
            if child.poll() is not None or time.monotonic() > deadline:
                raise pytest.UsageError(f"{server.command.name}: {log.read_text()}")
            time.sleep(0.02)
        return server.url

    def stop(self) -> None:
        """End the servers and remove their files."""
        for child, end_signal in self.children:
            child.send_signal(end_signal)
        for child, _ in self.children:
            child.wait(STOP_SECONDS_MAX)
        shutil.rmtree(self.base, ignore_errors=True)
        self.remover.communicate()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    """Before pytest-django reads the settings: have something for them to read."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        embedded = Embedded()
        early_config.add_cleanup(embedded.stop)
        os.environ["MINDMORE_HOME"] = str(embedded.home)
        os.environ["MINDMORE_TURN_COMPILED"] = "on" if compiled.is_used() else "off"
        for name in ("MINDMORE_SECRET_KEY", "MINDMORE_TURN_SECRETS", "MINDMORE_TURN_NONCE_KEYS"):
            os.environ[name] = secrets.token_hex(32)
        if not os.environ.get("DATABASE_URL"):
            os.environ["DATABASE_URL"] = embedded.start(
                postgres_prepare(embedded.home, durable=False)
            )
        if not os.environ.get("REDIS_URL"):
            os.environ["REDIS_URL"] = embedded.start(valkey_prepare(embedded.home))
    return (yield)
