"""A TURN server in a process of its own: Mindmore's relay, or coturn to prove the test itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Files
from tests.ports import free_port
from tests.skips import program_missing
from tests.turn_client import TurnClient, TurnError, credentials_mint

ROOT = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"
HOST6 = "::1"
OTHER_HOST = "127.0.0.2"
START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10
STARTS_MAX = 3
PORT_IS_TAKEN = "Address already in use"
PROJECT = "prj_aaaaaaaaaaaa"


@dataclass(frozen=True)
class Server:
    """A running server, its shared secret and its directory."""

    name: str
    port: int
    secret: str
    home: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    def credential(self, label: str = "test") -> tuple[str, str]:
        """Username and password for an hour."""
        expires_at = int(time.clock_gettime(time.CLOCK_REALTIME)) + 3600
        return credentials_mint(self.secret, f"{expires_at}:{PROJECT}/crd_{label}/{label}")

    def client(self) -> TurnClient:
        """A client of our own."""
        return TurnClient(self.address, *self.credential())

    def stop(self) -> None:
        """End it as an operator would, and wait until it has ended well."""
        self.process.terminate()
        assert self.process.wait(STOP_SECONDS_MAX) == 0


Launch = Callable[[int, Path, Files | None], tuple[list[str], Mapping[str, str], str]]


def mindmore(
    port: int, home: Path, certificate: Files | None
) -> tuple[list[str], Mapping[str, str], str]:
    """`manage.py runrelay`; it signs with the secret of these tests, as the API here does."""
    secret = os.environ["MINDMORE_TURN_SECRETS"].partition(",")[0]
    environment = {
        "MINDMORE_HOME": str(home),
        "MINDMORE_TURN_PORT": str(port),
        "MINDMORE_TURN_LISTEN_ADDRESS": f"{HOST},{HOST6}",
        "MINDMORE_TURN_OTHER_ADDRESS": OTHER_HOST,
        "MINDMORE_TURN_OTHER_PORT": str(free_port()),
        "MINDMORE_TURN_TCP_RELAY": "on",
        "MINDMORE_TURN_METRICS_PORT": "0",  # several of them run at once
        "MINDMORE_TURN_RELAY_ADDRESS": f"{HOST},{HOST6}",
        "DATABASE_URL": "postgresql:///it-must-need-none",
        "MINDMORE_TURN_CUT_OFF_SECONDS": "0",
    }
    if certificate:
        environment |= {
            "MINDMORE_TURN_TLS_PORT": str(free_port()),
            "MINDMORE_TURN_CERTIFICATE": str(certificate[0]),
            "MINDMORE_TURN_CERTIFICATE_KEY": str(certificate[1]),
        }
    return [sys.executable, str(ROOT / "manage.py"), "runrelay"], environment, secret


def door(
    port: int, home: Path, certificate: Files | None
) -> tuple[list[str], Mapping[str, str], str]:
    """The same with a door into its process, named after the port: tests.relay.endurance.door."""
    _, environment, secret = mindmore(port, home, certificate)
    begin = [sys.executable, "-m", "tests.as_configured", "tests.relay.endurance.door"]
    return [*begin, str(port)], environment, secret


def coturn(
    port: int, home: Path, certificate: Files | None
) -> tuple[list[str], Mapping[str, str], str]:
    """Debian's turnserver."""
    program("turnserver")
    secret = os.environ["MINDMORE_TURN_SECRETS"].partition(",")[0]
    tls = "--cert {} --pkey {}".format(*certificate) if certificate else "--no-tls --no-dtls"
    options = (
        f"-n -L {HOST} -L {HOST6} -E {HOST} -E {HOST6} -p {port} -r coturn --use-auth-secret "
        f"--static-auth-secret {secret} --allow-loopback-peers {tls} --no-cli "
        f"--mobility --no-stdout-log --simple-log -l {home}/log --pidfile {home}/pid --db {home}/db"
    )
    return ["turnserver", *options.split()], {}, secret


LAUNCHES: Mapping[str, Launch] = {"mindmore": mindmore, "door": door, "coturn": coturn}


def program(name: str) -> str:
    """The program's path; skips the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        program_missing(name, package="coturn")
    return path


@contextmanager
def server_running(
    name: str,
    home: Path,
    changes: Mapping[str, str] | None = None,
    certificate: Files | None = None,
) -> Iterator[Server]:
    """Start it, wait for its answer to a STUN Binding request, end it.

    Args:
        name: of `LAUNCHES`.
        home: its directory.
        changes: to the environment.
        certificate: for TLS and DTLS, on the same port as UDP and TCP; None for neither.
    """
    server = server_start(name, home, changes, certificate)
    try:
        yield server
    finally:
        server_end(server)


def server_start(
    name: str, home: Path, changes: Mapping[str, str] | None, certificate: Files | None
) -> Server:
    """Start it; with another port where somebody took the first one meanwhile."""
    output = home / "output"
    for _ in range(STARTS_MAX):
        port = free_port()
        command, environment, secret = LAUNCHES[name](port, home, certificate)
        environment = {**os.environ, **environment, **(changes or {})}
        with output.open("w+b") as written:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=written, stderr=written
            )
        server = Server(name, port, secret, home, process)
        try:
            if answer_wait(port, process):
                return server
        except BaseException:
            server_end(server)
            raise
        server_end(server)
        if PORT_IS_TAKEN not in output.read_text():
            break
    pytest.fail(f"the server does not answer: {output.read_text()}")


def server_end(server: Server) -> None:
    """End it, by force where it does not want to, and show what it said."""
    server.process.terminate()
    try:
        server.process.wait(STOP_SECONDS_MAX)
    finally:
        server.process.kill()
        sys.stdout.write((server.home / "output").read_text())


def answer_wait(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether it answers, in time."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with TurnClient((HOST, port), timeout_seconds=0.2) as client:
            try:
                client.binding()
                return True
            except (TurnError, ConnectionRefusedError):
                time.sleep(0.05)
    return False
