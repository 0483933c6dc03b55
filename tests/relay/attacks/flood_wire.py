"""Floods a relay over UDP as fast as one process can, until its standard input ends.

    python -m tests.relay.attacks.flood_wire FD HOST PORT HEX

FD is an inherited UDP socket, HEX the datagram. Prints how many were sent.
"""

from __future__ import annotations

import select
import socket
import sys

from tests.bench.batch import Sender

BATCH = 64


def main() -> None:
    descriptor, host, port, datagram = sys.argv[1:]
    endpoint = socket.socket(fileno=int(descriptor))
    sender = Sender(endpoint, [(host, int(port))] * BATCH, bytes.fromhex(datagram))
    sent = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(16):
            sent += sender.send(BATCH)
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main()
