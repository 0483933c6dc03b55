"""A million datagrams of strangers through the core: what memory they cost, and what they open.

    python -m tests.as_configured tests.relay.attacks.flood_core KIND COUNT    prints one JSON line

KIND is one of `KINDS`, or `hellos`: DTLS ClientHellos, each with a random of its own and no cookie.
A process of its own, so that nothing but the core can grow. Every datagram comes from another
address, which a sender on the internet can pretend.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import SSL

from relay.config import ClientLimits
from relay.core.addresses import FiveTuple
from relay.core.effects import OpenRelayed, SendToClient
from relay.core.settings import TurnSettings
from relay.core.turn import TurnServer
from relay.transports.certificates import Certificate
from relay.transports.cookies import RANDOM
from relay.transports.dtls import DtlsSessions
from tests.certificates import certificate_write
from tests.relay.transports.rig import dtls_connection
from tests.turn_client import (
    UDP_PROTOCOL,
    Address,
    Attribute,
    Kind,
    Method,
    message_encode,
)

NOW = 1_800_000_000.0
PER_SECOND = 50_000
SERVER = ("198.51.100.1", 3478)
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)


def spoofed(number: int) -> bytes:
    """An Allocate as any client begins."""
    return message_encode(Method.ALLOCATE, Kind.REQUEST, [REQUESTED])


def forged(number: int) -> bytes:
    """An Allocate with a credential that nobody minted, a nonce that nobody made, any integrity."""
    attributes = [
        REQUESTED,
        (Attribute.USERNAME, b"1800003600:prj_%d/crd_%d" % (number, number)),
        (Attribute.REALM, b"turn"),
        (Attribute.NONCE, b"obMatJos2AAAB" + b"%011d" % number),
    ]
    return message_encode(Method.ALLOCATE, Kind.REQUEST, attributes, key=b"forged")


def junk(number: int) -> bytes:
    """Bytes; every second datagram has a good STUN header before them."""
    tail = os.urandom(number % 97 * 4)
    if number % 2:
        return tail
    return (
        (number % 0x3FFF).to_bytes(2, "big")
        + len(tail).to_bytes(2, "big")
        + (b"\x21\x12\xa4\x42" + os.urandom(12) + tail)
    )


KINDS: dict[str, Callable[[int], bytes]] = {"spoofed": spoofed, "forged": forged, "junk": junk}


class Hellos:
    """DTLS before the core, without a socket; what it sends is counted."""

    def __init__(self, turn: TurnServer) -> None:
        self.answered = 0
        with TemporaryDirectory() as directory:
            certificate = Certificate(*certificate_write(Path(directory), "turn.test"))
        self.sessions = DtlsSessions(
            SERVER, certificate, ClientLimits(), turn, lambda _: None, self._send
        )
        connection = dtls_connection()
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            self._hello = bytearray(connection.bio_read(65536))

    def take(self, client: Address, now: float) -> None:
        """Take in the hello of one more stranger."""
        self._hello[RANDOM] = os.urandom(RANDOM.stop - RANDOM.start)
        self.sessions.receive(bytes(self._hello), client, now)

    def _send(self, datagram: bytes | memoryview, client: Address) -> int:
        self.answered += 1
        return len(datagram)


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def flood(kind: str, count: int) -> dict[str, object]:
    """Take in `count` datagrams from as many addresses, and say what that did."""
    settings = TurnSettings(
        realm="turn",
        secrets=(b"one", b"two"),
        nonce_keys=(b"key",),
        relay_addresses=("198.51.100.1",),
    )
    turn = TurnServer(settings, os.urandom)
    hellos = Hellos(turn) if kind == "hellos" else None
    make, answered, opened = KINDS.get(kind, spoofed), 0, 0

    def take(number: int) -> None:
        nonlocal answered, opened
        client = f"{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}.9", 1024 + number % 60000
        if hellos is not None:
            hellos.take(client, NOW + number / PER_SECOND)
            return
        five_tuple = FiveTuple("udp", client, SERVER)
        for effect in turn.receive_from_client(make(number), five_tuple, NOW + number / PER_SECOND):
            answered += isinstance(effect, SendToClient)
            opened += isinstance(effect, OpenRelayed)

    for number in range(1000):  # what Python itself keeps of the first ones is there before
        take(number)
    gc.collect()
    before = rss_bytes()
    for number in range(1000, count):
        take(number)
    return {
        "grown_bytes": rss_bytes() - before,
        "answered": hellos.answered if hellos else answered,
        "sessions": len(hellos.sessions) if hellos else 0,
        "opened": opened,
        "allocations": len(turn.table.by_id),
        "ports": turn.table.ports.taken_count,
        "refusals": turn.guard.refusals.count,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(flood(sys.argv[1], int(sys.argv[2]))) + "\n")
