"""One socket for all clients, and one of them floods it: he is thinned out in the kernel.

Whatever is read costs a system call, also what is dropped then; a socket that never runs empty
loses packets of everybody. So whoever is seen in most of the drains that left something behind is
put into a packet filter that lets a part of his datagrams
pass, by chance: a half, and half of that while it does not suffice. It relaxes the same way.

    for each: source address and port the same? ── no ─▶ next
                        └ yes: random number >= what passes ─▶ drop
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

from relay.core.addresses import SockAddress, host_pack
from relay.transports.packet_filters import (
    AT_LEAST,
    EQUAL,
    EVERYTHING,
    INSTRUCTION,
    LOAD_HALF,
    LOAD_WORD,
    NETWORK_HEADER,
    RANDOM,
    RETURN,
    SOURCE_ADDRESS,
    filter_attach,
    filter_detach,
)

SAMPLES = 8  # drains that are looked at together
SEEN = 4  # so many of them showed the same client
HALVINGS_MAX = 10
THINNED_MAX = 16
RELAX_SECONDS = 0.25


class Crowd:
    """The clients of one UDP socket that take more than it can give.

    Attributes:
        thinned: by client, how often what passes was halved.
    """

    def __init__(self, endpoint: socket.socket) -> None:
        self.thinned: dict[SockAddress, int] = {}
        self._socket = endpoint
        self._samples: list[SockAddress] = []

    def sample(self, client: SockAddress) -> None:
        """Note one datagram of a drain that was as large as can be and left something behind."""
        self._samples.append(client)
        if len(self._samples) < SAMPLES:
            return
        ((most, seen),) = Counter(self._samples).most_common(1)
        self._samples.clear()
        if seen >= SEEN and (most in self.thinned or len(self.thinned) < THINNED_MAX):
            self._thin(most)

    def _thin(self, client: SockAddress) -> None:
        if not self.thinned:
            asyncio.get_running_loop().call_later(RELAX_SECONDS, self._relax)
        halvings = self.thinned.get(client, 0)
        if halvings < HALVINGS_MAX:
            self.thinned[client] = halvings + 1
            self._filter()

    def _relax(self) -> None:
        self.thinned = {who: times - 1 for who, times in self.thinned.items() if times > 1}
        self._filter()
        if self.thinned:
            asyncio.get_running_loop().call_later(RELAX_SECONDS, self._relax)

    def _filter(self) -> None:
        if self._socket.fileno() < 0:  # closed meanwhile
            return
        if not self.thinned:
            filter_detach(self._socket)
            return
        program = b"".join(thin(*client, halvings) for client, halvings in self.thinned.items())
        program += INSTRUCTION.pack(RETURN, 0, 0, EVERYTHING)
        filter_attach(self._socket, program)


def thin(host: str, port: int, halvings: int) -> bytes:
    """The instructions that let 1 of 2**halvings datagrams of one client pass."""
    packed = host_pack(host)
    checks = []
    for offset in range(0, len(packed), 4):
        where = NETWORK_HEADER + SOURCE_ADDRESS[len(packed)] + offset
        checks.append((LOAD_WORD, where, int.from_bytes(packed[offset : offset + 4], "big")))
    checks.append((LOAD_HALF, 0, port))  # the filter of a UDP socket begins at the UDP header
    left = 2 * len(checks) + 3
    program = b""
    for load, where, wanted in checks:
        left -= 2
        program += INSTRUCTION.pack(load, 0, 0, where)
        program += INSTRUCTION.pack(EQUAL, 0, left, wanted)
    program += INSTRUCTION.pack(LOAD_WORD, 0, 0, RANDOM)
    program += INSTRUCTION.pack(AT_LEAST, 0, 1, EVERYTHING >> halvings)
    return program + INSTRUCTION.pack(RETURN, 0, 0, 0)
