"""20 % of all packets lost, some doubled, some late: calls live, and nothing is made twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay.metering.records import SessionRecord, UsageRecord
from tests.ports import free_port
from tests.relay.endurance.conftest import say, until
from tests.relay.interop.journal import records_read
from tests.relay.interop.servers import ROOT, Server, mindmore
from tests.skips import program_missing, skip

pytestmark = [pytest.mark.xdist_group("endurance"), pytest.mark.timeout(300)]

CLIENTS_HOST, RELAY_HOST = "10.9.0.1", "10.9.0.2"
CLIENTS = "10.64.{}.1"  # each in a network of its own
CALLS = 25
CALL_SECONDS_MAX = 120
EACH_WAY = pytest.mark.parametrize("bad_network", [(0.2, 0.2)], indirect=True, ids=["each way"])
# What a caller sends crosses the link twice before the other has it: 20 % in all.
TO_THE_RELAY = pytest.mark.parametrize("bad_network", [(0.2, 0.0)], indirect=True, ids=["20 %"])


@dataclass
class BadNetwork:
    """A relay behind a bad link."""

    relay: Server
    clients: str
    link: subprocess.Popen[str]

    def call(self, kind: str, **options: object) -> dict[str, Any]:
        """Run one kind of `callers` on the clients' side."""
        username, password = self.relay.credential("lossy")
        said = {
            "server": (RELAY_HOST, self.relay.port),
            "username": username,
            "credential": password,
            **options,
        }
        begin = time.monotonic()
        command = [sys.executable, "-m", "tests.relay.endurance.callers", kind, json.dumps(said)]
        done = subprocess.run(
            ["ip", "netns", "exec", self.clients, *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        say(kind, seconds=time.monotonic() - begin, **found)
        return found

    def end(self) -> dict[str, int]:
        """End relay and link; what the link did."""
        self.relay.stop()
        output, _ = self.link.communicate(timeout=10)
        counted: dict[str, int] = json.loads(output)
        say("link", **counted)
        return counted


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def bad_network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BadNetwork]:
    """Two namespaces of this test's own, joined by a link that loses packets each way as told."""
    if shutil.which("ip") is None:
        program_missing("ip", package="iproute2")
    if os.geteuid() or not Path("/dev/net/tun").exists():
        skip("network namespaces and their interfaces are made by root")
    clients, servers = (f"mmlossy-{os.getpid()}-{side}" for side in "cs")
    port = free_port()
    with ExitStack() as stack:
        for namespace in (clients, servers):
            ip("netns", "add", namespace)
            stack.callback(ip, "netns", "delete", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        link = stack.enter_context(link_running(clients, servers, port, *request.param))
        for namespace, address in ((clients, CLIENTS_HOST), (servers, RELAY_HOST)):
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", "lossy")
            ip("-n", namespace, "link", "set", "lossy", "up")
        # All of 10.64.0.0/10 is local to the clients' side: any of it can be bound to.
        ip("-n", clients, "route", "add", "local", "10.64.0.0/10", "dev", "lo")
        ip("-n", servers, "route", "add", "10.64.0.0/10", "dev", "lossy")
        relay = stack.enter_context(relay_running(servers, port, tmp_path))
        yield BadNetwork(relay, clients, link)


@contextmanager
def link_running(
    near: str, far: str, port: int, lost_to_far: float, lost_to_near: float
) -> Iterator[subprocess.Popen[str]]:
    """The link between two namespaces, as long as the test runs."""
    words = near, far, port, lost_to_far, lost_to_near
    with subprocess.Popen(
        [sys.executable, "-m", "tests.relay.endurance.lossy", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as link:
        assert link.stdout is not None
        assert link.stdout.readline() == "ready\n"
        yield link


@contextmanager
def relay_running(namespace: str, port: int, home: Path) -> Iterator[Server]:
    """A relay in a namespace."""
    command, environment, secret = mindmore(port, home, None)
    changes = {
        "MINDMORE_TURN_LISTEN_ADDRESS": RELAY_HOST,
        "MINDMORE_TURN_RELAY_ADDRESS": RELAY_HOST,
        "MINDMORE_TURN_OTHER_ADDRESS": "",
        "MINDMORE_TURN_CUT_OFF_SECONDS": "0",
        "MINDMORE_TURN_ALLOWED_PEERS": "10.9.0.0/24",
    }
    with (home / "output").open("w+b") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],
            cwd=ROOT,
            env={**os.environ, **environment, **changes},
            stdout=output,
            stderr=output,
        )
        relay = Server("mindmore", port, secret, home, process)
        try:
            until(lambda: "relay_started" in (home / "output").read_text(), lambda: "no start")
            yield relay
        finally:
            process.kill()
            process.wait()
            sys.stdout.write((home / "output").read_text())


@EACH_WAY
def test_transactions_survive_a_bad_network_and_happen_once(bad_network: BadNetwork) -> None:
    found = bad_network.call("transactions", clients=CLIENTS, peer=CLIENTS_HOST, calls=CALLS)
    counted = bad_network.end()
    assert found["resent"] > CALLS
    assert found["back"] > 0
    assert counted["lost"] > 0.15 * counted["packets"]
    assert counted["doubled"] > 0
    assert counted["late"] > 0
    records = records_read(bad_network.relay.home)
    ended = [each for each in records if isinstance(each, UsageRecord) and each.ended]
    assert sum(isinstance(each, SessionRecord) for each in records) == len(ended) == CALLS
    # What arrived was relayed and is charged once, and nothing else.
    assert sum(each.peer_sent_total for each in ended) == counted["client_bytes"]
    assert sum(each.peer_received_total for each in ended) == counted["peer_bytes"]


@TO_THE_RELAY
@pytest.mark.parametrize("kind", ["aiortc", "libwebrtc"])
def test_webrtc_call_lives_on_a_bad_network(bad_network: BadNetwork, kind: str) -> None:
    found = bad_network.call(kind)
    assert found["equal"]
    counted = bad_network.end()
    assert counted["lost"] > 0.05 * counted["packets"]
