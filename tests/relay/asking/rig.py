"""A relay of its own process with `$MINDMORE_HOME/env`, as an operator has it."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.relay.interop.servers import HOST, Server, server_running
from tests.turn_client import TurnClient, TurnError

CHANNEL = 0x4001
PATIENCE_SECONDS = 20.0
SECRETS = {name: f"{name} of the tests in {__name__}" for name in ("first", "second", "third")}
ENVIRONMENT = {
    # What the environment of the tests says itself, and would win over the file.
    "MINDMORE_TURN_SECRETS": "",
    "MINDMORE_TURN_NONCE_KEYS": "",
    "MINDMORE_TURN_CUT_OFF_SECONDS": "0",  # there is no database
}


class Installation:
    """A relay, its file of settings and its log."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.file = server.home / "env"
        self.read_to = 0

    def configure(self, **settings: str) -> None:
        """Write settings beside the usual ones; a reload takes them over."""
        self.file.write_text(env_file(settings))

    def hang_up(self) -> dict[str, object]:
        """SIGHUP, and what the log says of it."""
        self.read_to = len(self.log())
        self.server.process.send_signal(signal.SIGHUP)
        return self.said("configuration_kept", "configuration_reloaded")

    def said(self, *events: str) -> dict[str, object]:
        """The next line of the log about one of these events."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for line in self.log()[self.read_to :]:
                self.read_to += 1
                if line.get("event") in events:
                    return line
            time.sleep(0.005)
        raise AssertionError(f"no word of {events}: {(self.server.home / 'output').read_text()}")

    def log(self) -> list[dict[str, object]]:
        """Every whole line of the log."""
        text = (self.server.home / "output").read_text()
        lines = text.splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "\n"]


def env_file(settings: Mapping[str, str]) -> str:
    """The lines of the file: fixed secrets, and what is given in small letters."""
    lines = {
        "MINDMORE_TURN_SECRETS": SECRETS["first"],
        "MINDMORE_TURN_NONCE_KEYS": SECRETS["first"],
        # These tests fail to authenticate often, from one address.
        "MINDMORE_TURN_UNAUTHENTICATED_ANSWERS_PER_SECOND": "0",
        "MINDMORE_TURN_FAILURES_PER_MINUTE": "0",
        **{f"MINDMORE_TURN_{name.upper()}": value for name, value in settings.items()},
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


@contextmanager
def installation_running(
    home: Path, changes: Mapping[str, str] | None = None, **settings: str
) -> Iterator[Installation]:
    """Start a relay.

    Args:
        home: its directory.
        changes: of its environment.
        settings: what its file says besides the secrets, by the end of the variables' names.
    """
    home.mkdir(exist_ok=True)
    (home / "env").write_text(env_file(settings))
    with server_running("mindmore", home, {**ENVIRONMENT, **(changes or {})}) as server:
        own = Server(server.name, server.port, SECRETS["first"], home, server.process)
        yield Installation(own)


def ping(client: TurnClient, peer: socket.socket) -> None:
    """Data there and back over the client's channel."""
    client.send_channel(CHANNEL, b"there")
    data, relayed = peer.recvfrom(100)
    peer.sendto(data + b" and back", relayed)
    assert client.receive() == (CHANNEL, b"there and back")


@contextmanager
def udp_peer() -> Iterator[socket.socket]:
    """Somebody to call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((HOST, 0))
        peer.settimeout(5)
        yield peer


@contextmanager
def calling(relay: Installation) -> Iterator[tuple[TurnClient, socket.socket]]:
    """A client with a channel to a peer."""
    with relay.server.client() as client, udp_peer() as peer:
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        ping(client, peer)
        yield client, peer


def refusal_code(relay: Installation, secret: str = "first") -> int:
    """What a new Allocate with a credential of this secret is told; 0: it got its allocation."""
    with replace(relay.server, secret=SECRETS[secret]).client() as client:
        try:
            client.allocate()
            client.refresh(0)
        except TurnError as error:
            return error.code
    return 0
