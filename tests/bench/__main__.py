"""Mindmore's relay and coturn side by side, in one run, interleaved: A B A B.

    python -m tests.bench [--quick] [--loopback] [--first NAME] [--second NAME]

Absolute numbers differ from machine to machine; the ratios are what counts. Traffic is
ChannelData between 100 clients and a peer, half of it in each direction; a packet that reached
the other side counts as one relayed packet.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import CLOCK_REALTIME, clock_gettime, monotonic
from types import FrameType
from typing import Any

from relay.compiled import build_directory, is_complete
from tests.bench.network import Network, network_open
from tests.bench.report import LABELS, Row, table
from tests.bench.servers import COMMANDS, ROOT, SEVERAL, Server, pinned, servers_running

SIZES_BYTES = (160, 1200)
ALLOCATIONS = 100
STREAM_RATE = 10_000
LOSS_MAX = 0.005
LAG_MAX = 0.03  # the load generator's, against the rate that it was told
# By what the load generator answers: the name, and the goal in microseconds. Rests under load may
# not cost what a call would notice.
DELAYS: dict[str, tuple[str, float | None]] = {
    "delay_seconds": ("median", 1_000),
    "delay_seconds_p99": ("99th percentile", None),
}
IDLE = (1_000, 10_000)
WARM_UP = 64
TRIES_MAX = 3
BUSY_MAX = 0.5  # load average at the start
CREDENTIAL_SECONDS = 3600


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    rounds: int
    traffic_seconds: float
    rates: tuple[int, ...]  # offered packets a second where CPU per packet is measured
    search_steps: int
    search_seconds: float
    idle_rounds: int


FULL = Plan(
    rounds=8,
    traffic_seconds=1.5,
    rates=(20_000, 80_000),
    search_steps=6,
    search_seconds=1.0,
    idle_rounds=5,
)
QUICK = Plan(
    rounds=2,
    traffic_seconds=0.8,
    rates=(20_000, 80_000),
    search_steps=5,
    search_seconds=0.5,
    idle_rounds=2,
)


@dataclass(frozen=True)
class Offer:
    """What clients and peer send: datagrams of so many bytes, so many a second."""

    size: int
    rate: int
    transport: str

    @property
    def load(self) -> str:
        """The same in words."""
        return f"{self.size} bytes, {self.rate // 1000},000/s"


class Load:
    """The load generator's process, asked one command at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, command: str, label: str, **options: Any) -> dict[str, float]:
        """Have one command carried out for the server called `label`."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([command, label, options]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the load generator ended")
        answer: dict[str, float] = json.loads(line)
        return answer


@contextmanager
def load_running(network: Network, cpu: int | None) -> Iterator[Load]:
    """Start the load generator in the clients' place."""
    process = subprocess.Popen(
        [*network.client_command, *pinned(cpu), sys.executable, "-m", "tests.bench.load"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Load(process)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait()


class Search:
    """The highest rate that a server carries, by halving."""

    def __init__(self, rate_max: float) -> None:
        self.low, self.high = 0.0, rate_max
        self.best = 0.0
        self.passed = self.load_bound = False

    @property
    def rate(self) -> float:
        """The rate to try next."""
        return (self.low + self.high) / 2

    def carried(self, run: dict[str, float]) -> bool:
        """Take one run's counts; whether little enough was lost."""
        self.passed = run["received"] >= run["sent"] * (1 - LOSS_MAX)
        if self.passed:
            arrived = run["received"] / run["seconds"]
            self.load_bound = arrived < self.rate * (1 - LAG_MAX)
            self.best = max(self.best, arrived)
        return self.passed

    def narrow(self) -> None:
        """Go on in the upper or the lower half."""
        if self.passed and not self.load_bound:
            self.low = self.rate
        else:
            self.high = self.rate


class Bench:
    """One run over both servers."""

    def __init__(self, names: tuple[str, str], plan: Plan, network: Network) -> None:
        self.names = dict(zip(LABELS, names, strict=True))
        self.plan = plan
        self.network = network
        self.secret = secrets.token_hex(16)
        self.expires_at = int(clock_gettime(CLOCK_REALTIME)) + CREDENTIAL_SECONDS
        # One core for the servers, another for the load; the same for both servers.
        cores = sorted(os.sched_getaffinity(0))
        self.server_cpu = None if SEVERAL & set(names) or len(cores) == 1 else cores[0]
        self.load_cpu = cores[1] if len(cores) > 1 else None
        self.rows: list[Row] = []
        self.notes: set[str] = set()
        busy, _, _ = os.getloadavg()
        if busy > BUSY_MAX:
            self.notes.add(f"other programs ran too (load {busy:.1f}): rates a second say little")

    def row(self, row: Row) -> Row:
        """Add a row to the table."""
        self.rows.append(row)
        return row

    def as_json(self) -> dict[str, object]:
        """Everything that was measured."""
        return {
            "servers": self.names,
            "network": self.network.kind,
            "allocations": ALLOCATIONS,
            "plan": asdict(self.plan),
            "notes": sorted(self.notes),
            "rows": [row.as_json() for row in self.rows],
        }

    @contextmanager
    def running(self) -> Iterator[tuple[Load, dict[str, Server]]]:
        """Fresh servers, and a load generator that knows them by their labels."""
        names = (self.names["first"], self.names["second"])
        with (
            servers_running(names, self.network, self.secret, cpu=self.server_cpu) as servers,
            load_running(self.network, self.load_cpu) as load,
        ):
            labelled = dict(zip(LABELS, servers, strict=True))
            for label, server in labelled.items():
                load("server", label, **asdict(server))
            yield load, labelled

    def traffic(self) -> None:
        """CPU per relayed packet at a rate that both can carry, then the highest rate of each."""
        with self.running() as (load, _):
            self.rigs_make(load, "udp")
            rates = self.plan.rates
            offers = [Offer(size, rate, "udp") for size in SIZES_BYTES for rate in rates]
            costs = self.cpu_per_packet(load, offers)
            for offer in offers:
                if offer.rate == max(rates):
                    self.highest_rate(load, offer.size, costs[offer])

    def streams(self) -> None:
        """The same over TCP and TLS, at a rate that leaves the load generator room for TLS."""
        for transport in ("tcp", "tls"):
            with self.running() as (load, _):
                self.rigs_make(load, transport)
                self.cpu_per_packet(load, [Offer(SIZES_BYTES[-1], STREAM_RATE, transport)])

    def rigs_make(self, load: Load, transport: str) -> None:
        """Allocations on both servers, ready to carry data."""
        clients = [self.network.client_address(index) for index in range(ALLOCATIONS)]
        for label in LABELS:
            load(
                "rig",
                label,
                secret=self.secret,
                expires_at=self.expires_at,
                peer_host=self.network.peer,
                clients=clients,
                transport=transport,
            )

    def cpu_per_packet(self, load: Load, offers: list[Offer]) -> dict[Offer, Row]:
        """Offer the same to both, in turns; there is a goal for UDP, whatever is offered.

        Every round has all of it: a bad minute of the machine is in every row alike.
        """
        rows: dict[Offer, Row] = {}
        delays: dict[Offer, dict[str, Row]] = {}
        for offer in offers:
            over = "" if offer.transport == "udp" else f" over {offer.transport.upper()}"
            name = f"CPU per relayed packet{over}, {offer.load}"
            rows[offer] = self.row(Row(name, "us", False, 2, ratio_min=None if over else 0.7))
            delays[offer] = {} if over else self.delay_rows(offer)
        for _ in range(self.plan.rounds):
            for offer, row in rows.items():
                for label in LABELS:
                    run = self.steady(load, label, offer)
                    if run["received"] < run["sent"] * (1 - LOSS_MAX):
                        self.notes.add(f"{self.names[label]} lost packets where CPU was measured")
                    row.add(label, run["server_cpu_seconds"] / max(run["received"], 1) * 1e6)
                    for key, delay in delays[offer].items():
                        delay.add(label, run[key] * 1e6)
        return rows

    def delay_rows(self, offer: Offer) -> dict[str, Row]:
        """What a datagram waits while so many others are relayed.

        There is a goal where both servers have time to rest; a core that is full has a queue.
        """
        is_light = offer.rate == min(self.plan.rates)
        return {
            key: self.row(
                Row(
                    f"delay, {name}, {offer.load}",
                    *("us", False, 0),
                    value_max=goal if is_light else None,
                )
            )
            for key, (name, goal) in DELAYS.items()
        }

    def steady(self, load: Load, label: str, offer: Offer) -> dict[str, float]:
        """One run; once more where the machine was too busy to keep the rate."""
        what = {"size": offer.size, "rate": offer.rate, "seconds": self.plan.traffic_seconds}
        run = load("traffic", label, **what)
        if run["sent"] >= offer.rate * run["seconds"] * (1 - LAG_MAX):
            return run
        self.notes.add("the load generator could not keep its rate: is the machine busy?")
        return load("traffic", label, **what)

    def highest_rate(self, load: Load, size: int, cost: Row) -> None:
        """Halve the interval in which the highest rate with little loss lies, in turns."""
        row = self.row(Row(f"packets of {size} bytes at under 0.5 % loss", "a second", True, 0))
        # Start where its CPU cost says that the core is full, up to twice that.
        searches = {label: Search(2e6 / cost.value(label)) for label in LABELS}
        for _ in range(self.plan.search_steps):
            for label, search in searches.items():
                # More than one try, because one hiccup of the machine loses packets too.
                for _ in range(TRIES_MAX):
                    run = load(
                        "traffic",
                        label,
                        size=size,
                        rate=search.rate,
                        seconds=self.plan.search_seconds,
                    )
                    if search.carried(run):
                        break
                search.narrow()
        for label, search in searches.items():
            row.add(label, search.best)
            if search.load_bound:
                self.notes.add(f"{self.names[label]} may carry more: the load generator was full")

    def allocations(self) -> None:
        """Memory of idle allocations and the speed of making them, on fresh servers each round."""
        rss = {
            count: self.row(
                Row(f"RSS per idle allocation at {count:,}", "bytes", False, 0, value_max=5_000)
            )
            for count in IDLE
        }
        speed = self.row(Row("allocations", "a second", True, 0, value_min=5_000))
        per_cpu = self.row(Row("allocations", "per server CPU second", True, 0))
        for _ in range(self.plan.idle_rounds):
            with self.running() as (load, servers):
                for label, server in servers.items():
                    username = f"{self.expires_at}:prj_bench/crd_idle"
                    load("allocator", label, secret=self.secret, username=username)
                    run = self.allocate(load, label, 0, WARM_UP)
                    before, made = server.rss_bytes(), WARM_UP
                    for count, row in rss.items():
                        run = self.allocate(load, label, made, WARM_UP + count)
                        made = WARM_UP + count
                        row.add(label, (server.rss_bytes() - before) / count)
                    speed.add(label, run["allocations"] / run["seconds"])
                    per_cpu.add(label, run["allocations"] / run["server_cpu_seconds"])
                    load("allocator_close", label)

    def allocate(self, load: Load, label: str, low: int, high: int) -> dict[str, float]:
        """Make the allocations `low` to `high`, each client from a network of its own."""
        clients = [self.network.client_address(index) for index in range(low, high)]
        run = load("allocate", label, clients=clients)
        for failure in ("refused", "silent", "resent"):
            if run[failure]:
                self.notes.add(f"{self.names[label]}: {run[failure]} allocations {failure}")
        return run


def arguments_parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="in little more than a minute, less exact"
    )
    parser.add_argument("--loopback", action="store_true", help="no network namespaces")
    parser.add_argument("--first", choices=COMMANDS, default="mindmore")
    parser.add_argument("--second", choices=COMMANDS, default="coturn")
    return parser.parse_args()


def terminate(_signal: int, _frame: FrameType | None) -> None:
    """Leave by the context managers, so that servers and namespaces go too."""
    raise SystemExit("ended by a signal")


def main() -> int:
    """Run the bench; 1 where a goal is missed."""
    options = arguments_parse()
    if shutil.which("turnserver") is None:
        raise SystemExit("the bench needs coturn: apt install coturn")
    signal.signal(signal.SIGTERM, terminate)
    started = monotonic()
    names = (options.first, options.second)
    with network_open(loopback=options.loopback) as network:
        bench = Bench(names, QUICK if options.quick else FULL, network)
        bench.traffic()
        bench.streams()
        bench.allocations()
    say = sys.stdout.write
    form = "compiled" if is_complete(build_directory()) else "as Python: `make compile`"
    say(f"{ALLOCATIONS} allocations, {network.kind}, {monotonic() - started:.0f} s; ")
    say(f"the relay {form}; ")
    say("bound to no core" if SEVERAL & set(names) else "both on one core")
    say(", coturn with one relay thread; above 1x the first is better\n\n")
    say(table(names, bench.rows) + "\n")
    for note in sorted(bench.notes):
        say(f"note: {note}\n")
    result = ROOT / "build" / "bench.json"
    result.parent.mkdir(exist_ok=True)
    result.write_text(json.dumps(bench.as_json(), indent=2) + "\n")
    return int(any(row.passed is False for row in bench.rows))


if __name__ == "__main__":
    sys.exit(main())
