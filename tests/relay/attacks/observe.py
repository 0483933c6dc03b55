"""What can be seen of a relay from outside: its memory, its descriptors, its log."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.relay.interop.servers import HOST, PROJECT, Server
from tests.turn_client import TurnClient, credentials_mint

FIRST = -15  # its "nice" value


def rss_bytes(server: Server) -> int:
    """Resident memory."""
    statm = Path(f"/proc/{server.process.pid}/statm").read_text()
    return int(statm.split()[1]) * resource.getpagesize()


def descriptors(server: Server) -> int:
    """How many files and sockets it has open."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def log_lines(server: Server) -> list[dict[str, Any]]:
    """What it has logged so far."""
    lines = (server.home / "output").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def settle(server: Server) -> None:
    """Wait until it has taken in what was sent: its CPU time stands still."""
    spent, before = cpu_seconds(server), -1.0
    while spent != before:
        time.sleep(0.3)
        spent, before = cpu_seconds(server), spent


def cpu_seconds(server: Server) -> float:
    """Its CPU time, to a tenth of a second."""
    stat = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return round((int(stat[11]) + int(stat[12])) / 100, 1)


@contextmanager
def before_all_others(server: Server) -> Iterator[None]:
    """The server and this thread run first, where we may say so: who else is busy on this machine
    is then no part of what is measured.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        for process in (server.process.pid, 0):
            os.setpriority(os.PRIO_PROCESS, process, FIRST)
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


def wall_seconds() -> float:
    """Unix seconds."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def client_until(server: Server, expires_at: int, label: str = "attack") -> TurnClient:
    """A client whose credential ends at a time of ours."""
    username = f"{expires_at}:{PROJECT}/crd_{label}/{label}"
    return TurnClient(server.address, *credentials_mint(server.secret, username))


def udp_socket(host: str = HOST) -> socket.socket:
    """A socket on an address of this machine; all of 127/8 are."""
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind((host, 0))
    return endpoint
