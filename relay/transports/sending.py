"""Sending data to a peer, and counting what went."""

from __future__ import annotations

from relay.core.addresses import SockAddress
from relay.core.allocation import Allocation, SendTo
from relay.core.turn import TurnServer

TRIES = 2  # the first may fail only to report an ICMP error about an earlier datagram


def data_send(
    turn: TurnServer,
    allocation: Allocation,
    send: SendTo,
    data: memoryview | bytes,
    peer: SockAddress,
) -> None:
    """Send data, and count it where the kernel has taken it."""
    for _ in range(TRIES):
        try:
            send(data, peer)
        except OSError:
            continue
        allocation.peer_sent_bytes += len(data)
        return
    turn.dropped["peer unreachable"] += 1
