"""Two real relays on one Valkey and one database, each of which can go away."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote, urlsplit

from django.db import connection
from django.utils import timezone
from redis import Redis

from accounts.models import Project
from mindmore.embedded.valkey import Valkey, valkey_prepare
from mindmore.processes import spawn
from relay.services.control import credential_revoke
from relay.services.credentials import Credential, credential_mint
from tests.homes import home_remove
from tests.relay.interop.servers import HOST, Server, server_running
from tests.turn_client import TurnClient, TurnError

PATIENCE_SECONDS = 30.0  # far more than anything takes, also where the machine is busy
START_SECONDS_MAX = 30.0
NODES = ("node-a", "node-b")
REFUSED, NO_ALLOCATION, QUOTA, CAPACITY = 401, 437, 486, 508


def wait_until(fact: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> float:
    """Wait until something is true; how many seconds that took."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() - began < seconds, "it did not become true"
        time.sleep(0.01)
    return time.monotonic() - began


class ValkeyServer:
    """A Valkey that forgets everything when it is killed."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.prepared: Valkey = valkey_prepare(home)
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.prepared.url

    def start(self) -> None:
        self.child = spawn(self.prepared.command, output=subprocess.DEVNULL)
        wait_until(self.prepared.is_ready, START_SECONDS_MAX)

    def signal(self, number: signal.Signals) -> None:
        assert self.child
        self.child.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self.child
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self.child = None

    def close(self) -> None:
        if self.child is not None:
            self.kill()
        home_remove(self.home)

    def client(self) -> Redis:
        return Redis.from_url(self.url)


class Door:
    """A TCP port that leads to a server, or is shut: then nobody gets through, old or new."""

    def __init__(self, target: str | tuple[str, int]) -> None:
        self.target = target
        self.listener = socket.create_server((HOST, 0))
        self.port: int = self.listener.getsockname()[1]
        self.is_open = True
        self.links: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        self.is_open = False
        for link in list(self.links):
            link.close()

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.shut()
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                visitor, _ = self.listener.accept()
            except OSError:
                return
            if self.is_open:
                threading.Thread(target=self._carry, args=(visitor,), daemon=True).start()
            else:
                visitor.close()

    def _carry(self, visitor: socket.socket) -> None:
        family = socket.AF_UNIX if isinstance(self.target, str) else socket.AF_INET
        with visitor, socket.socket(family) as server, selectors.DefaultSelector() as selector:
            self.links |= {visitor, server}
            try:
                server.connect(self.target)
                other = {visitor: server, server: visitor}
                for link in other:
                    selector.register(link, selectors.EVENT_READ)
                while self.is_open:
                    for key, _ in selector.select(0.1):
                        assert isinstance(key.fileobj, socket.socket)
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        other[key.fileobj].sendall(data)
            except (OSError, ValueError):
                return
            finally:
                self.links -= {visitor, server}


def database_door() -> Door:
    """A door to the database of these tests."""
    settings = connection.settings_dict
    host, port = settings["HOST"] or "/var/run/postgresql", int(settings["PORT"] or 5432)
    return Door(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))


def database_url(port: int) -> str:
    """The database of these tests through a door."""
    settings = connection.settings_dict
    user = quote(settings["USER"] or "", safe="")
    password = f":{quote(settings['PASSWORD'], safe='')}" if settings["PASSWORD"] else ""
    assert urlsplit(os.environ["DATABASE_URL"]).scheme in ("postgresql", "postgres")
    return f"postgresql://{user}{password}@{HOST}:{port}/{settings['NAME']}"


class Fleet:
    """Two relays, what they hang on, and a project whose credentials they take.

    Attributes:
        relays: by node.
    """

    def __init__(self, base: Path, project: Project) -> None:
        self.base = base
        self.project = project
        self.valkey = ValkeyServer(base / "valkey-home")
        self.database = database_door()
        self.relays: dict[str, Server] = {}
        self._stacks: dict[str, ExitStack] = {}
        self._settings: Mapping[str, str] = {}
        self._starts = 0

    def start(self, **changes: object) -> None:
        """Start both relays, with MINDMORE_TURN_NAME=value for each of `changes`."""
        self._settings = {f"MINDMORE_TURN_{name}": str(value) for name, value in changes.items()}
        for node in NODES:
            self.relay_start(node)

    def relay_start(self, node: str) -> Server:
        """Start one relay (again)."""
        self._starts += 1
        home = self.base / f"{node}-{self._starts}"
        home.mkdir()
        stack = self._stacks.setdefault(node, ExitStack())
        self.relays[node] = stack.enter_context(
            server_running(
                "mindmore",
                home,
                {
                    "DATABASE_URL": database_url(self.database.port),
                    "REDIS_URL": self.valkey.url,
                    "MINDMORE_TURN_NODE": node,
                    "MINDMORE_TURN_CUT_OFF_SECONDS": "60",
                    "MINDMORE_TURN_FAILURES_PER_MINUTE": "0",
                    "MINDMORE_TURN_UNAUTHENTICATED_ANSWERS_PER_SECOND": "0",
                    **self._settings,
                },
            )
        )
        return self.relays[node]

    def started(self) -> None:
        """Wait until both relays have their snapshot and listen."""
        for server in self.relays.values():
            wait_until(partial(has_said, server, "control_snapshot"))
        wait_until(lambda: len(self.alive()) == len(self.relays))

    def alive(self) -> list[int]:
        """The numbers, within their relays, of the processes that say that they listen."""
        client = self.valkey.client()
        values = [client.get(key) for key in client.keys("mindmore:relay:alive:*")]
        return [json.loads(value)["process"] for value in values if value is not None]

    def close(self) -> None:
        for stack in self._stacks.values():
            stack.close()
        self.database.close()
        self.valkey.close()

    def mint(self, **asked: object) -> Credential:
        """A credential of the project."""
        asked = {"project": self.project, "now": timezone.now(), **asked}
        return credential_mint(**asked)  # type: ignore[arg-type]

    @contextmanager
    def clients(self, credential: Credential) -> Iterator[list[TurnClient]]:
        """A client at each relay."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(client_of(server, credential))
                for server in self.relays.values()
            ]

    def boot(self, node: str) -> str:
        """Which start of a relay this is."""
        (directory,) = (self.relays[node].home / "journal").iterdir()
        return directory.name.removeprefix(f"{node}-")


def client_of(server: Server, credential: Credential, host: str = "") -> TurnClient:
    """A client with this credential, on an address of its own where one is named."""
    return TurnClient(server.address, credential.username, credential.password, local=(host, 0))


def code_of(act: Callable[[], object]) -> int:
    """The error code that a request is answered with; 0 where it succeeds, -1 without an answer."""
    try:
        act()
    except TurnError as error:
        return error.code or -1
    return 0


def allocation_code(server: Server, credential: Credential) -> int:
    """The error code that a new allocation is answered with; one that succeeds is given back."""
    with client_of(server, credential) as client:
        code = code_of(client.allocate)
        if code == 0:
            code_of(lambda: client.refresh(0))  # a revocation may just have ended it
        return code


def log_lines(server: Server) -> list[dict[str, object]]:
    """What a relay has said so far, in JSON."""
    lines = (server.home / "output").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def events(server: Server) -> list[object]:
    """The names of what a relay has said so far."""
    return [line["event"] for line in log_lines(server)]


def has_said(server: Server, event: str) -> bool:
    """Whether it was in its log."""
    return event in events(server)


def revoke(fleet: Fleet, credential: Credential) -> None:
    credential_revoke(project=fleet.project, credential=credential.id, now=timezone.now())


def everywhere(fleet: Fleet, credential: Credential, code: int) -> Callable[[], bool]:
    """Whether every relay answers a new allocation with this code."""
    return lambda: all(
        allocation_code(server, credential) == code for server in fleet.relays.values()
    )


def refresh_code(client: TurnClient) -> int:
    """The error code that a Refresh is answered with; 0: the call goes on."""
    return code_of(partial(client.refresh, 600))


def refused(client: TurnClient) -> bool:
    return refresh_code(client) != 0


def ended(client: TurnClient) -> bool:
    return refresh_code(client) == NO_ALLOCATION
