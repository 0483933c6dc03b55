"""How fast a running service mints credentials, over HTTP keep-alive connections.

    make run                                # in one terminal
    python -m tests.bench.credentials       # in another: reads demo.json

Goal: at least 500 credentials a second with 99 % of the answers within 50 ms, on two cores that
web server, database and this client share. Every answer must be 201 and whole.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
RATE_MIN = 500
P99_SECONDS_MAX = 0.050
WARM_UP_SECONDS = 1.0
ANSWER_SECONDS_MAX = 10.0


@dataclass
class Connection:
    """One keep-alive connection with one request under way."""

    socket: socket.socket
    asked_at: float = 0.0
    answer: bytes = b""

    def ask(self, request: bytes) -> None:
        """Send the next request."""
        self.answer = b""
        self.asked_at = perf_counter()
        self.socket.sendall(request)

    def take(self) -> bool:
        """Take what has come; whether that is the whole answer."""
        received = self.socket.recv(65536)
        if not received:
            raise SystemExit("the server closed a keep-alive connection")
        self.answer += received
        head, separator, body = self.answer.partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 201 "):
            raise SystemExit(self.answer.decode(errors="replace"))
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        return len(body) == length


def measure(url: str, key: str, *, connections: int, seconds: float) -> tuple[float, list[float]]:
    """Mint for `seconds`; credentials a second, and each answer's time in seconds."""
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or 80
    body = b'{"ttl": 3600, "label": "bench"}'
    request = (
        f"POST /api/v1/credentials HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        connection = Connection(socket.create_connection((host, port), ANSWER_SECONDS_MAX))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.ask(request)
    times: list[float] = []
    start = perf_counter() + WARM_UP_SECONDS
    while (now := perf_counter()) < start + seconds:
        ready = selector.select(ANSWER_SECONDS_MAX)
        if not ready:
            raise SystemExit(f"no answer within {ANSWER_SECONDS_MAX:.0f} s")
        for event, _ in ready:
            connection = event.data
            if connection.take():
                now = perf_counter()
                if connection.asked_at >= start:
                    times.append(now - connection.asked_at)
                connection.ask(request)
    for event in list(selector.get_map().values()):
        event.data.socket.close()
    return len(times) / seconds, times


def main() -> int:
    """Measure and print; 1 where the goal is missed."""
    home = Path(os.environ.get("MINDMORE_HOME") or ROOT / ".mindmore")
    parser = argparse.ArgumentParser(prog="python -m tests.bench.credentials", description=__doc__)
    parser.add_argument("--demo", type=Path, default=home / "demo.json")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    demo = json.loads(options.demo.read_text())
    rate, times = measure(
        demo["web_url"], demo["api_key"], connections=options.connections, seconds=options.seconds
    )
    cuts = quantiles(times, n=100)
    passed = rate >= RATE_MIN and cuts[98] <= P99_SECONDS_MAX
    sys.stdout.write(
        f"{rate:,.0f} credentials a second over {options.connections} connections; "
        f"half of the answers within {cuts[49] * 1e3:.1f} ms, 99 % within {cuts[98] * 1e3:.1f} ms, "
        f"all within {max(times) * 1e3:.1f} ms: {'PASS' if passed else 'FAIL'}\n"
    )
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
