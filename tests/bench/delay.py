"""How long a datagram takes through a server under load, from a peer to one client.

One allocation more than those that make the load gets what a camera sends: a picture of 30
datagrams in a row, again and again. Each says when it was sent, and for which run: a datagram that
is lost is infinitely late. What the load generator itself adds is the same for every server.
"""

from __future__ import annotations

import socket
import struct
from math import inf
from statistics import quantiles
from time import perf_counter

from tests.turn_client import Address, TurnClient

CHANNEL = 0x4000
PICTURE = 30
PICTURE_SECONDS = 1 / 30
SENT_AT = struct.Struct("!Id")  # the run, and when
HEADER_LENGTH = 4  # of ChannelData
LAST_SECONDS = 0.05  # for what is under way when the run ends
PERCENTILES = 100


class DelayProbe:
    """Sends marked datagrams and takes the time until each arrives."""

    def __init__(self, client: TurnClient, peer: socket.socket, relayed: Address) -> None:
        self._client = client
        self._peer = peer
        self._relayed = relayed
        self._run = 0
        self._sent = 0
        self._picture_at = 0.0
        self._delays: list[float] = []

    def step(self, now: float) -> None:
        """Take what has arrived, and send where it is time."""
        self.take()
        if now - self._picture_at < PICTURE_SECONDS:
            return
        self._picture_at = now
        for _ in range(PICTURE):
            self._peer.sendto(SENT_AT.pack(self._run, perf_counter()), self._relayed)
        self._sent += PICTURE

    def take(self) -> None:
        """Take what has arrived; of an earlier run, nothing."""
        while True:
            try:
                data = self._client.socket.recv(HEADER_LENGTH + SENT_AT.size)
            except BlockingIOError:
                return
            run, sent_at = SENT_AT.unpack_from(data, HEADER_LENGTH)
            if run == self._run:
                self._delays.append(perf_counter() - sent_at)

    def percentiles(self) -> tuple[float, float]:
        """The median and the 99th percentile of this run, in seconds; the next one begins."""
        ends_at = perf_counter() + LAST_SECONDS
        while perf_counter() < ends_at:
            self.take()
        delays = percentiles_of(self._delays, self._sent)
        self._run += 1
        self._sent, self._delays = 0, []
        return delays

    def close(self) -> None:
        """Delete the allocation."""
        self._client.socket.settimeout(2)
        self._client.refresh(0)
        self._client.socket.close()
        self._peer.close()


def percentiles_of(delays: list[float], sent: int) -> tuple[float, float]:
    """The median and the 99th percentile of what was sent, in the unit of `delays`."""
    cuts = quantiles([*delays, *[inf] * (sent - len(delays))], n=PERCENTILES, method="inclusive")
    return cuts[PERCENTILES // 2 - 1], cuts[-1]
