"""What becomes of data that does not fit a packet: run in a network namespace of its own.

    unshare --net python -m tests.relay.transports.fragments_probe

Packets have at most 1280 bytes there. Prints, as JSON, for each way that a call can take, the
lengths that arrive: of a long message at the peer and one at the client, and at the peer after the
client has sent a long one with DONT-FRAGMENT and a short one without.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.relay.transports.dual import allocate, dual_relay_running
from tests.relay.transports.rig import HOSTS, PATIENCE_SECONDS, RunningRelay
from tests.turn_client import Attribute, Attributes, Kind, Method, message_encode

CHANNEL = 0x4001
MTU = 1280
LONG, SHORT = 4000, 10
WAYS = [
    (transport, here, there) for transport in ("udp", "tcp") for here in HOSTS for there in HOSTS
]


def call(relay: RunningRelay, transport: str, here: int, there: int) -> tuple[list[int], list[int]]:
    """The lengths that arrive: whole messages, and those after DONT-FRAGMENT."""
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[there]
    with relay.client(transport, here) as client, socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.bind((HOSTS[there], 0))
        peer.settimeout(PATIENCE_SECONDS)
        address = peer.getsockname()[:2]
        relayed = allocate(client, there)
        client.bind(CHANNEL, address)
        client.send_channel(CHANNEL, bytes(LONG))
        whole = [len(peer.recv(65536))]
        peer.sendto(bytes(LONG), relayed)
        whole.append(len(client.receive()[1]))
        attributes: Attributes = [
            (Attribute.XOR_PEER_ADDRESS, address),
            (Attribute.DATA, bytes(LONG)),
            (Attribute.DONT_FRAGMENT, b""),
        ]
        client.transmit(message_encode(Method.SEND, Kind.INDICATION, attributes))
        client.send(address, bytes(SHORT))
        arrived: list[int] = []
        while SHORT not in arrived:
            arrived.append(len(peer.recv(65536)))
    return whole, arrived


def main() -> None:
    """Make the namespace usable, then call every way."""
    subprocess.run(["ip", "link", "set", "lo", "up", "mtu", str(MTU)], check=True)
    with TemporaryDirectory() as home, dual_relay_running(Path(home)) as relay:
        found = {f"{way}": call(relay, *way) for way in WAYS}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
