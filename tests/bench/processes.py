"""What a second process brings: Binding answers a second from a hundred networks.

    python -m tests.bench.processes

Relaying cannot show it on two cores: there the load generator needs one for itself. Asking costs
the load generator a third of what answering costs the relay. One and two processes take turns.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import select
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time

from tests.bench.servers import Server
from tests.relay.interop.servers import HOST, server_running
from tests.turn_client import Address, Kind, Method, message_encode

NETWORKS = 100
WAITING = 4  # requests of each client that are not answered yet
SECONDS = 3.0
ROUNDS = 3
POLL_SECONDS = 0.2


@contextlib.contextmanager
def clients(server: Address) -> Iterator[dict[int, socket.socket]]:
    """A client in each network, by descriptor."""
    with contextlib.ExitStack() as stack:
        found = {}
        for network in range(NETWORKS):
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.bind((f"127.3.{network}.1", 0))
            client.connect(server)
            client.setblocking(False)
            found[client.fileno()] = client
        yield found


def answers_count(server: Address) -> tuple[int, float]:
    """How many answers came, and in how many seconds."""
    request = message_encode(Method.BINDING, Kind.REQUEST)
    with clients(server) as found, select.epoll() as poll:
        for client in found.values():
            poll.register(client, select.EPOLLIN)
            for _ in range(WAITING):
                client.send(request)
        answers = 0
        started_at = perf_counter()
        while perf_counter() - started_at < SECONDS:
            for descriptor, _ in poll.poll(POLL_SECONDS):
                found[descriptor].recv(200)
                found[descriptor].send(request)
                answers += 1
        return answers, perf_counter() - started_at


def measure(processes: int) -> str:
    """One line about so many processes."""
    changes = {
        "MINDMORE_TURN_PROCESSES": str(processes),
        "MINDMORE_TURN_MOBILITY": "off",
        "MINDMORE_TURN_UNAUTHENTICATED_ANSWERS_PER_SECOND": "0",
    }
    with (
        tempfile.TemporaryDirectory(prefix="mmbench-") as home,
        contextlib.redirect_stdout(io.StringIO()),  # what the server said
        server_running("mindmore", Path(home), changes) as running,
    ):
        server = Server("mindmore", HOST, running.process.pid, None)
        before, load_before = server.cpu_seconds(), process_time()
        answers, seconds = answers_count(running.address)
        relay = (server.cpu_seconds() - before) / seconds
        load = (process_time() - load_before) / seconds
    rate = f"{answers / seconds:,.0f} answers a second"
    return f"{processes}: {rate}; cores: relay {relay:.2f}, load {load:.2f}\n"


def main() -> None:
    """Take turns."""
    for name in ("MINDMORE_TURN_SECRETS", "MINDMORE_TURN_NONCE_KEYS", "MINDMORE_SECRET_KEY"):
        os.environ[name] = secrets.token_hex(32)
    os.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"  # nobody: it must need none
    for _ in range(ROUNDS):
        for processes in (1, 2):
            sys.stdout.write(measure(processes))


if __name__ == "__main__":
    main()
