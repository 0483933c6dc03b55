"""How long a relay lets one wait that asks it: a Binding request every 2 ms, for as long as told.

    python -m tests.relay.endurance.probe HOST PORT PROCESS

Prints what was found once its standard input ends. A busy machine makes everybody wait: the time
in which the relay, or this process, was ready to run and no core was free is taken off (both are
in /proc/.../schedstat), and what the host of this machine took. What is left is the relay's own:
how long its event loop was blocked.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from pathlib import Path

from tests.turn_client import Kind, Method, message_encode

IP_PKTINFO = 8
PACKET_INFO = struct.Struct("=i4s4s")
INTERVAL_SECONDS = 0.002
ANSWER_SECONDS_MAX = 10.0
SOURCES = [  # many networks: each may ask ten times a second without a credential
    [(socket.IPPROTO_IP, IP_PKTINFO, PACKET_INFO.pack(0, bytes((127, 32, network, 1)), bytes(4)))]
    for network in range(250)
]


def waited_seconds(process: Path) -> float:
    """How long the threads of a process have been ready to run while no core was free.

    Each counts: Python's lock may be with one of them that waits.
    """
    return sum(map(waited_nanoseconds, process.glob("task/*/schedstat"))) / 1e9


def waited_nanoseconds(schedstat: Path) -> int:
    """The same of one thread; of one that has ended meanwhile nothing is known any more."""
    try:
        return int(schedstat.read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def stolen_seconds() -> float:
    """How long the host has let this machine wait, as far as it says so."""
    with open("/proc/stat") as stat:
        return int(stat.readline().split()[8]) / 100


def main() -> None:
    """Ask until standard input ends."""
    host, port, process = sys.argv[1:]
    relay, own = Path(f"/proc/{process}"), Path("/proc/self")
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind(("0.0.0.0", 0))
    endpoint.settimeout(ANSWER_SECONDS_MAX)
    blocked: list[float] = []
    answered: list[float] = []
    sys.stdout.write("\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], INTERVAL_SECONDS)[0]:
        request = message_encode(Method.BINDING, Kind.REQUEST)
        source = SOURCES[len(blocked) % len(SOURCES)]
        others = waited_seconds(relay) + waited_seconds(own) + stolen_seconds()
        sent_at = time.monotonic()
        try:
            endpoint.sendmsg([request], source, 0, (host, int(port)))
            while endpoint.recv(2048)[8:20] != request[8:20]:
                pass
        except (TimeoutError, ConnectionRefusedError):  # the relay is gone
            break
        waited = time.monotonic() - sent_at
        others = waited_seconds(relay) + waited_seconds(own) + stolen_seconds() - others
        answered.append(waited)
        blocked.append(max(0.0, waited - others))
    found = {
        "asked": len(blocked),
        "blocked_seconds_max": max(blocked, default=0.0),
        "answered_seconds_max": max(answered, default=0.0),
        "answered_seconds_p99": sorted(answered)[int(len(answered) * 0.99)] if answered else 0.0,
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
