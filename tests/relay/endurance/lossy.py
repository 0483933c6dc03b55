"""A bad network between two network namespaces: it loses, doubles and reorders packets.

    namespace A ── tun ──┐                        ┌── tun ── namespace B
        clients, peers   └─ this process: a fate ─┘   the relay
                            for each IP packet

    python -m tests.relay.endurance.lossy A B PORT LOST_TO_B LOST_TO_A

Runs as root until its standard input ends, then prints what it did to whom. It says "ready" when
both interfaces, called `lossy`, are there. PORT is the relay's: data to it is counted. What is lost
each way is a part of 1.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import select
import struct
import sys
import time
from collections import Counter
from heapq import heappop, heappush

TUNSETIFF = 0x400454CA  # from <linux/if_tun.h>
IFF_TUN_NO_PI = 0x1001
CLONE_NEWNET = 0x40000000
PACKET_BYTES_MAX = 65536
UDP_PROTOCOL = 17
DOUBLED, LATE = 0.05, 0.15
LATE_SECONDS = 0.04

libc = ctypes.CDLL(None, use_errno=True)


def tun_open(namespace: str) -> int:
    """Go there for good, and make an interface."""
    with open(f"/run/netns/{namespace}") as place:
        if libc.setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"lossy", IFF_TUN_NO_PI))
    return descriptor


def fates(number: int, part_lost: float) -> list[float]:
    """After how many seconds a packet arrives: once, twice, or not at all; the same in each run."""
    digest = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=12).digest()
    lost, doubled, late = (part / 2**32 for part in struct.unpack("!III", digest))
    if lost < part_lost:
        return []
    delay = LATE_SECONDS * late / LATE if late < LATE else 0.0
    return [delay, LATE_SECONDS * doubled / DOUBLED] if doubled < DOUBLED else [delay]


class Link:
    """Both ends, and what is on its way between them."""

    def __init__(self, near: int, far: int, port: int, part_lost: dict[int, float]) -> None:
        self.other = {near: far, far: near}
        self.far = far
        self.port = port
        self.part_lost = part_lost
        self.counted: Counter[str] = Counter()
        self._waiting: list[tuple[float, int, int, bytes]] = []

    def run(self) -> None:
        """Carry packets until standard input ends."""
        ends = [*self.other, sys.stdin.fileno()]
        while True:
            wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
            ready, _, _ = select.select(ends, [], [], wait and max(0.0, wait))
            if sys.stdin.fileno() in ready:
                return
            for end in ready:
                self.take(end)
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, end, packet = heappop(self._waiting)
                self.deliver(end, packet)

    def take(self, end: int) -> None:
        """Decide about one packet."""
        packet = os.read(end, PACKET_BYTES_MAX)
        if packet[0] >> 4 != 4:  # IPv6 looks for neighbours
            return
        self.counted["packets"] += 1
        delays = fates(self.counted["packets"], self.part_lost[end])
        self.counted["lost"] += not delays
        self.counted["doubled"] += len(delays) == 2
        self.counted["late"] += any(delays)
        for delay in delays:
            entry = time.monotonic() + delay, self.counted["sent"], self.other[end], packet
            self.counted["sent"] += 1
            heappush(self._waiting, entry)

    def deliver(self, end: int, packet: bytes) -> None:
        """Let it arrive; what comes to the relay is counted."""
        os.write(end, packet)
        header = (packet[0] & 15) * 4
        if end != self.far or packet[9] != UDP_PROTOCOL:
            return
        _, port, length = struct.unpack_from("!HHH", packet, header)
        if port != self.port:
            self.counted["peer_bytes"] += length - 8
        elif packet[header + 8] & 0xC0 == 0x40:
            self.counted["client_bytes"] += length - 8 - 4  # without the ChannelData header


def main() -> None:
    """Make both ends and carry packets between them."""
    near, far = tun_open(sys.argv[1]), tun_open(sys.argv[2])
    port, lost_to_far, lost_to_near = sys.argv[3:]
    link = Link(near, far, int(port), {near: float(lost_to_far), far: float(lost_to_near)})
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    link.run()
    sys.stdout.write(json.dumps(link.counted) + "\n")


if __name__ == "__main__":
    main()
