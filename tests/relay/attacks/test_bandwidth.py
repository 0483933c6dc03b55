"""The bandwidth cap holds on every transport and in both directions, by dropping (Security 14)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.relay.attacks.conftest import StartRelay
from tests.relay.attacks.observe import before_all_others, udp_socket
from tests.relay.interop.servers import Server
from tests.stream_client import StreamClient
from tests.turn_client import TurnClient, channeldata_encode

CHANNEL = 0x4000
KBPS = 2000
SIZE = 1000
SECONDS = 5.0
OFFERED = 3.0  # times the cap
TRANSPORTS = ["udp", "tcp", "tls"]


def client_over(transport: str, relay: Server) -> TurnClient:
    if transport == "udp":
        return relay.client()
    return StreamClient(relay.address, *relay.credential(), tls=transport == "tls")


def pump(send: Callable[[], object], seconds: float) -> None:
    """Send at OFFERED times the cap."""
    interval = SIZE * 8 / (KBPS * 1000 * OFFERED)
    begin = time.monotonic()
    sent = 0
    while (passed := time.monotonic() - begin) < seconds:
        while sent * interval < passed:
            send()
            sent += 1
        time.sleep(0.001)


def relayed_bps(send: Callable[[], object], receive: Callable[[], int]) -> float:
    """What arrives, in bits of data a second, after the first half second."""
    counted, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            try:
                counted[0] += receive()
            except TimeoutError:
                continue

    thread = threading.Thread(target=count)
    thread.start()
    try:
        pump(send, 0.5)
        begin, before = time.monotonic(), counted[0]
        pump(send, SECONDS)
        return (counted[0] - before) * 8 / (time.monotonic() - begin)
    finally:
        time.sleep(0.3)
        stop.set()
        thread.join()


@pytest.mark.parametrize("direction", ["to the peer", "to the client"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_cap_holds_within_five_percent_on_every_transport(
    relay_start: StartRelay, certificate: tuple[Path, Path], transport: str, direction: str
) -> None:
    chain, key = certificate
    relay = relay_start(
        PROJECT_BITRATE_KBPS_MAX=KBPS, CERTIFICATE=chain, CERTIFICATE_KEY=key, TLS_PORT=free_port()
    )
    with (
        before_all_others(relay),
        client_over(transport, relay) as client,
        udp_socket() as peer,
    ):
        peer.settimeout(0.2)
        relayed = client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        data, message = bytes(SIZE), channeldata_encode(CHANNEL, bytes(SIZE))
        if direction == "to the peer":
            bps = relayed_bps(lambda: client.transmit(message), lambda: len(peer.recv(2048)))
        else:
            waiting(client, 0.2)
            bps = relayed_bps(
                lambda: peer.sendto(data, relayed), lambda: len(client.datagram_receive()) - 4
            )
            waiting(client, 2)
        assert bps == pytest.approx(KBPS * 1000, rel=0.05)
        assert client.refresh(600) == 600  # nobody was disconnected


def waiting(client: TurnClient, seconds: float) -> None:
    endpoint: socket.socket = client.socket
    endpoint.settimeout(seconds)
