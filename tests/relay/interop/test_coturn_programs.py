"""Coturn's client programs lose nothing, whatever they are told to do."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.certificates import Files
from tests.ports import free_port
from tests.relay.interop.servers import (
    HOST,
    HOST6,
    Server,
    program,
    server_running,
)
from tests.relay.interop.tap import Flow, tapped
from tests.turn_client import Attribute, Kind, Message, Method

# One group: they share servers, and mostly wait, so that they run beside one another.
pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("coturn")]

AT_ONCE = 8
PATIENCE_SECONDS = 120
MESSAGES = 50
STARTS_MAX = 10
COUNTS = re.compile(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)")
LOST = re.compile(r"Total lost packets (\d+) .*, total send dropped (\d+) ")
# So many clients of one address at once are not what these limits are for.
NO_LIMITS = {"MINDMORE_TURN_UNAUTHENTICATED_ANSWERS_PER_SECOND": "0"}


@dataclass(frozen=True)
class Run:
    """One run of `turnutils_uclient`.

    Attributes:
        server: which one it sends through.
        flags: what it is told; without -y it needs a peer that sends back.
        host: where it reaches the server.
        peer: where the peer that sends back is; None: there is none.
        lost_max: messages that may be lost; the program ends a TLS connection before it has
            read everything.
    """

    server: str
    flags: str
    host: str = HOST
    peer: str | None = None
    lost_max: int = 0

    def __str__(self) -> str:
        flags = self.flags.replace(" ", "") or "base"
        return f"{self.server}{flags}{'-echo' if self.peer else ''}{'-6' * (self.host == HOST6)}"


TRANSPORTS = {"": 0, "-t": 0, "-t -S": 3, "-S": 0}  # and the messages that each may lose
# Without -c it asks for pairs of ports (EVEN-PORT), for RTP and RTCP.
METHODS = ["", "-s", "-c", "-s -c"]
RUNS = [
    *(Run("mindmore", flags, peer=HOST) for flags in METHODS),
    *(Run("mindmore", f"{flags} -y".strip()) for flags in METHODS),
    *(
        Run(server, f"{flags} -y")
        for server in ("mindmore", "coturn")
        for flags in ("-X", "-g", "-g -s", "-X -g -c", "-D -G", "-Z", "-c -M")
    ),
    *(
        Run(server, flags, peer=HOST6)
        for server in ("mindmore", "coturn")
        for flags in ("-x", "-x -s", "-x -g -s -c")
    ),
    Run("mindmore", "-T"),
    *(
        Run("mindmore", f"{transport} {method} -y".strip(), host, lost_max=lost_max)
        for transport, lost_max in TRANSPORTS.items()
        for method in ("", "-s")
        for host in (HOST, HOST6)
        if transport or host == HOST6
    ),
]


@contextmanager
def echo_peer(host: str) -> Iterator[int]:
    """`turnutils_peer`: sends back what it gets; its port."""
    port = free_port()
    process = subprocess.Popen(
        [program("turnutils_peer"), "-L", host, "-p", str(port)], stdout=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, certificate: Files
) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                server_running(name, tmp_path_factory.mktemp(name), NO_LIMITS, certificate)
            )
            for name in ("mindmore", "coturn")
        }


@pytest.fixture(scope="module")
def outputs(
    request: pytest.FixtureRequest, servers: dict[str, Server]
) -> Iterator[dict[Run, Future[str]]]:
    """What every run says that a selected test asks for, once it has ended."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    selected = [item.callspec.params["run"] for item in items if "outputs" in item.fixturenames]
    with ExitStack() as stack:
        peers = {host: stack.enter_context(echo_peer(host)) for host in (HOST, HOST6)}
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        stack.callback(pool.shutdown, cancel_futures=True)

        def submit(run: Run) -> Future[str]:
            peer = ["-e", run.peer, "-r", str(peers[run.peer])] if run.peer else []
            server = servers[run.server]
            return pool.submit(uclient, server, run.host, server.port, *run.flags.split(), *peer)

        yield {run: submit(run) for run in RUNS if run in selected}


def uclient(server: Server, host: str, port: int, *flags: str) -> str:
    """Send through the server with `turnutils_uclient`; what it says."""
    username, password = server.credential()
    where = ["-p", str(port), "-u", username, "-w", password]
    amount = ["-n", str(MESSAGES), "-m", "2", "-z", "5", "-l", "160"]
    done = subprocess.run(
        [program("turnutils_uclient"), *where, *amount, *flags, host],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_uclient_loses_nothing(run: Run, outputs: dict[Run, Future[str]]) -> None:
    lost_check(outputs[run].result(), run.lost_max)


def lost_check(output: str, lost_max: int = 0) -> None:
    sent, received = COUNTS.findall(output)[-1]
    assert int(sent) >= 2 * MESSAGES
    assert int(sent) - int(received) <= lost_max
    lost, dropped = LOST.findall(output)[-1]
    assert int(lost) <= lost_max
    assert dropped == "0"


def test_uclient_is_given_pairs_of_ports(servers: dict[str, Server]) -> None:
    """For RTP and RTCP: an even port, and with its reservation token the next one."""
    server = servers["mindmore"]
    with tapped(server.address) as tap:
        lost_check(uclient(server, HOST, tap.port, "-y"))
    reserved: dict[bytes, int] = {}
    redeemed: dict[bytes, int] = {}
    for flow in tap.flows.values():
        for request, answer in allocations(flow):
            port = answer.address(Attribute.XOR_RELAYED_ADDRESS)[1]
            if Attribute.EVEN_PORT in request.attributes:
                reserved[answer.attributes[Attribute.RESERVATION_TOKEN]] = port
            elif Attribute.RESERVATION_TOKEN in request.attributes:
                redeemed[request.attributes[Attribute.RESERVATION_TOKEN]] = port
    assert len(redeemed) >= 2
    assert all(port % 2 == 0 for port in reserved.values())
    # It may ask for one more pair, whose second port it leaves.
    assert redeemed.items() <= {token: port + 1 for token, port in reserved.items()}.items()


def allocations(flow: Flow) -> Iterator[tuple[Message, Message]]:
    """Each Allocate that succeeded, and its answer."""
    found = {
        (message.kind, message.transaction): message
        for message in flow.messages()
        if message.method == Method.ALLOCATE
    }
    for (kind, transaction), message in found.items():
        if kind is Kind.SUCCESS:
            yield found[Kind.REQUEST, transaction], message


def said_by(name: str, *arguments: str) -> str:
    """What a program says that ends well.

    It takes the port beside the one that the kernel gave it, which may be somebody's: then it
    is started anew.
    """
    for _ in range(STARTS_MAX):
        done = subprocess.run(
            [program(name), *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        if "Address already in use" not in done.stderr:
            assert done.returncode == 0, done.stdout
            return done.stdout
    pytest.fail("it finds no port")


@pytest.mark.parametrize("name", ["mindmore", "coturn"])
@pytest.mark.parametrize("host", [HOST, HOST6], ids=["ipv4", "ipv6"])
def test_stunclient_learns_its_address(servers: dict[str, Server], name: str, host: str) -> None:
    said = said_by("turnutils_stunclient", "-p", str(servers[name].port), host)
    assert f"UDP reflexive addr: {host}:" in said


@pytest.mark.parametrize("test", ["-m", "-f", "-m -P", "-f -P"])
def test_natdiscovery_understands_what_it_is_answered(
    servers: dict[str, Server], test: str
) -> None:
    port = servers["mindmore"].port
    said = said_by("turnutils_natdiscovery", *test.split(), "-p", str(port), HOST)
    assert "RFC 5780 response 1" in said
    assert "Endpoint Independent" in said
