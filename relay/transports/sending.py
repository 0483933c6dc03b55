"""Sending data to a peer or a message to the client, and counting what went."""

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


def message_send(
    turn: TurnServer, allocation: Allocation, send: SendTo, message: memoryview
) -> bool:
    """Send a message to the client, and count what went; whether the kernel has taken it."""
    try:
        sent = send(message, allocation.client)
    except OSError:
        turn.dropped["client unreachable"] += 1
        return False
    allocation.client_sent_bytes += sent
    return True
