"""Calls over a bad network; run inside its namespace, with a JSON object of options as argument.

    python -m tests.relay.endurance.callers transactions|aiortc|libwebrtc OPTIONS

Prints what came of them as a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest.mock import patch

from tests.relay.interop import peers
from tests.turn_client import (
    Attributes,
    Kind,
    Message,
    Method,
    TurnClient,
    TurnError,
    message_encode,
)

CHANNEL = 0x4000
EXCHANGES: dict[str, Callable[..., Coroutine[Any, Any, list[bytes]]]] = {
    "aiortc": partial(peers.aiortc_exchange, repeated=True),
    "libwebrtc": peers.libwebrtc_exchange,
}
OPEN_SECONDS_MAX = 80
MESSAGES = [secrets.token_bytes(size) for size in (1, 160, 1200, 4000)] * 3
DATAGRAMS = 60
RESEND_SECONDS = 0.5  # RFC 8489 section 6.2.1; not doubled, so that the test ends some day
TRIES = 30
SETTLE_SECONDS = 0.5


class PatientClient(TurnClient):
    """A client that asks again for as long as it takes."""

    resent = 0

    def exchange(self, method: Method, attributes: Attributes = (), *, key: bytes = b"") -> Message:
        transaction = secrets.token_bytes(12)
        datagram = message_encode(
            method, Kind.REQUEST, attributes, transaction=transaction, key=key
        )
        for _ in range(TRIES):
            self.transmit(datagram)
            try:
                return self.answer_wait(transaction)
            except TimeoutError:
                self.resent += 1
        raise TurnError(method, 0)


def one_call(options: dict[str, Any], number: int, peer: tuple[str, int]) -> dict[str, int]:
    """Every transaction of a call, and data both ways in between."""
    local = options["clients"].format(number), 0
    credential = options["username"], options["credential"]
    client = PatientClient(
        tuple(options["server"]), *credential, local=local, timeout_seconds=RESEND_SECONDS
    )
    with client:
        client.allocate()
        client.permit(peer)
        client.bind(CHANNEL, peer)
        for _ in range(DATAGRAMS):
            client.send_channel(CHANNEL, b"\xff" * 200)
            time.sleep(0.002)
        assert client.refresh(600) == 600
        back = 0
        client.socket.settimeout(SETTLE_SECONDS)
        try:
            while client.receive():
                back += 1
        except TimeoutError:
            pass
        client.socket.settimeout(RESEND_SECONDS)
        assert client.refresh(0) == 0
    return {"back": back, "resent": client.resent}


def transactions(options: dict[str, Any]) -> dict[str, int]:
    """Many calls at once to one peer, which sends everything back."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind((options["peer"], 0))

    def echo() -> None:
        while True:
            data, source = peer.recvfrom(2048)
            peer.sendto(data, source)

    threading.Thread(target=echo, daemon=True).start()
    count = options["calls"]
    with ThreadPoolExecutor(count) as pool:
        calls = [pool.submit(one_call, options, at, peer.getsockname()) for at in range(count)]
        done = [call.result() for call in calls]
    return {
        "back": sum(call["back"] for call in done),
        "resent": sum(call["resent"] for call in done),
    }


def webrtc(name: str, options: dict[str, Any]) -> dict[str, int]:
    """Two peers, relay only, and messages both ways."""
    host, port = options["server"]
    server = {
        "urls": [f"turn:{host}:{port}?transport=udp"],
        "username": options["username"],
        "credential": options["credential"],
    }
    with patch.object(peers, "OPEN_SECONDS_MAX", OPEN_SECONDS_MAX):
        back = asyncio.run(EXCHANGES[name]({"iceServers": [server]}, MESSAGES))
    return {"sent": len(MESSAGES), "equal": int(back == MESSAGES)}


def main() -> None:
    """Do what is asked."""
    name, options = sys.argv[1], json.loads(sys.argv[2])
    done = transactions(options) if name == "transactions" else webrtc(name, options)
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
