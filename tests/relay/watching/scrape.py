"""A relay, and what it says of itself to those who scrape it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.relay.interop.servers import HOST, Server
from tests.relay.transports.rig import DatagramClient, DtlsClient
from tests.stream_client import StreamClient
from tests.turn_client import TurnClient

PATIENCE_SECONDS = 10.0
OURS = "mindmore_relay_"
Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Answer:
    """What an HTTP server said."""

    status: int
    headers: dict[str, str]
    body: bytes


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.kinds: dict[str, str] = {}
        self.values: dict[Series, float] = {}
        for family in text_string_to_metric_families(text):
            total = "_total" if family.type == "counter" else ""
            self.kinds[family.name + total] = family.type
            for sample in family.samples:
                series = sample.name, frozenset(sample.labels.items())
                assert series not in self.values, f"twice: {series}"
                self.values[series] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the series of a metric of ours with these labels; there must be one."""
        full = name if name.startswith("process_") else OURS + name
        found = [
            value
            for (metric, pairs), value in self.values.items()
            if metric == full and labels.items() <= dict(pairs).items()
        ]
        assert found, f"no series {full} {labels}"
        return sum(found)


class Watched:
    """A running relay with its metrics."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    def get(self, path: str, method: str = "GET", accept: str = "") -> Answer:
        return http_get(self.port, path, method, accept)

    def answer_wait(self) -> None:
        """Wait until somebody answers: its port is bound by a thread of its own."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.get("/health")
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def scrape(self) -> Scrape:
        answer = self.get("/metrics")
        assert answer.status == 200
        return Scrape(answer.body.decode())

    def health(self) -> tuple[int, dict[str, Any]]:
        answer = self.get("/health")
        found: dict[str, Any] = json.loads(answer.body)
        return answer.status, found

    def until(self, fact: Callable[[Scrape], bool]) -> Scrape:
        """The first scrape of which something is true."""
        return until(self.scrape, fact)

    def client(self, transport: str, family: int = 4, label: str = "test") -> TurnClient:
        """A client over udp, tcp, tls or dtls."""
        address = {4: HOST, 6: "::1"}[family], self.server.port
        credential = self.server.credential(label)
        if transport == "udp":
            return DatagramClient(address, *credential)
        if transport == "dtls":
            return DtlsClient(address, *credential)
        return StreamClient(address, *credential, tls=transport == "tls")

    def events(self) -> list[dict[str, Any]]:
        """Its log; every line of it must be an object."""
        lines = (self.server.home / "output").read_text().splitlines()
        return [json.loads(line) for line in lines]


def http_get(port: int, path: str, method: str = "GET", accept: str = "") -> Answer:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path, headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def until(
    scrape: Callable[[], Scrape],
    fact: Callable[[Scrape], bool],
    seconds: float = PATIENCE_SECONDS,
) -> Scrape:
    """The first scrape of which something is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = scrape()
        if fact(found):
            return found
        assert time.monotonic() < deadline, changed(found.values)
        time.sleep(0.1)


def changed(values: dict[Series, float]) -> Iterable[str]:
    """What is not 0, to read."""
    return [f"{name} {sorted(pairs)} {value}" for (name, pairs), value in values.items() if value]
