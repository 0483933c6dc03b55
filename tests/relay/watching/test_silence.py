"""Nothing that is anybody's is in a relay's log, nor in its metrics, whatever clients do to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import suppress

import pytest

from tests.relay.interop.servers import HOST
from tests.relay.watching.conftest import StartRelay
from tests.relay.watching.scrape import Watched
from tests.turn_client import (
    PAIR,
    UDP_PROTOCOL,
    Attribute,
    Kind,
    Method,
    TurnClient,
    TurnError,
    message_encode,
)

LABEL = "label-of-somebody"
PAYLOAD = b"payload-of-somebody"
GUESS = "guess-of-somebody"
FORBIDDEN_PEER = "10.11.12.13"
TCP_PROTOCOL_VALUE = b"\x06\0\0\0"
IPV4 = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
SECRETS = ("MINDMORE_TURN_SECRETS", "MINDMORE_TURN_NONCE_KEYS", "MINDMORE_SECRET_KEY")


def found_in(text: str, words: set[str]) -> set[str]:
    """What must not be in a text and is: these words, and whatever looks like an address."""
    addresses = set(IPV4.findall(text)) | ({"::"} if "::" in text else set())
    return {word for word in words if word in text} | addresses


def udp_call(client: TurnClient, peer: socket.socket) -> None:
    """Every method over one five-tuple, and what is refused."""
    peer_address = peer.getsockname()
    client.binding()
    attributes = [
        (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL),
        (Attribute.EVEN_PORT, b"\x80"),
        (Attribute.MOBILITY_TICKET, b""),
    ]
    answer = client.request(Method.ALLOCATE, attributes)
    relayed = answer.address(Attribute.XOR_RELAYED_ADDRESS)
    client.permit(peer_address)
    client.bind(0x4000, peer_address)
    client.send_channel(0x4000, PAYLOAD)
    assert peer.recv(100) == PAYLOAD
    client.send(peer_address, PAYLOAD)
    assert peer.recv(100) == PAYLOAD
    peer.sendto(PAYLOAD, relayed)
    client.receive()
    client.bind(0x4001, (HOST, closed_port()))
    client.send_channel(0x4001, PAYLOAD)  # an ICMP error comes back
    client.send_channel(0x4FFF, PAYLOAD)
    for method, wrong in (
        (Method.CREATE_PERMISSION, [(Attribute.XOR_PEER_ADDRESS, (FORBIDDEN_PEER, 1))]),
        (Method.CHANNEL_BIND, [(Attribute.XOR_PEER_ADDRESS, peer_address)]),
        (Method.CONNECT, [(Attribute.XOR_PEER_ADDRESS, peer_address)]),
        (Method.ALLOCATE, attributes),
        (Method.REFRESH, [(0x7F00, b"must be understood")]),
    ):
        with pytest.raises(TurnError):
            client.request(method, wrong)
    client.refresh(0)


def closed_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def tcp_call(relay: Watched, client: TurnClient, listener: socket.socket) -> None:
    """RFC 6062: a connection with a peer, and its data."""
    client.request(Method.ALLOCATE, [(Attribute.REQUESTED_TRANSPORT, TCP_PROTOCOL_VALUE)])
    answer = client.request(Method.CONNECT, [(Attribute.XOR_PEER_ADDRESS, listener.getsockname())])
    number = answer.attributes[Attribute.CONNECTION_ID]
    accepted, _ = listener.accept()
    with accepted, relay.client("tcp", label=LABEL) as data:
        data.realm, data.nonce, data.key = client.realm, b"", client.key
        data.request(Method.CONNECTION_BIND, [(Attribute.CONNECTION_ID, number)])
        data.socket.sendall(PAYLOAD)
        assert accepted.recv(100) == PAYLOAD


def hostile(relay: Watched) -> None:
    """Guesses, junk, broken streams, and floods that meet silence."""
    username, _ = relay.server.credential(LABEL)
    for _ in range(4):
        guessing = TurnClient(relay.server.address, username, GUESS, timeout_seconds=0.1)
        with guessing, suppress(TurnError):
            guessing.allocate()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as junk:
        junk.connect(relay.server.address)
        for number in range(100):
            junk.send(PAYLOAD)
            junk.send(b"\x16\xfe\xfd" + PAYLOAD)
            junk.send(message_encode(Method.ALLOCATE, Kind.REQUEST, [(6, username.encode())]))
            junk.send(PAIR.pack(0x4000, number) + PAYLOAD)
    for start in (PAYLOAD, b"\x16\x03\x01\x02\0" + PAYLOAD, b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection(relay.server.address, timeout=5) as stream:
            stream.sendall(start)
            with suppress(OSError):
                stream.recv(100)


def test_log_and_metrics_hold_nothing_that_is_anybodys(relay_start: StartRelay) -> None:
    relay = relay_start(
        TCP_RELAY="on", FAILURES_PER_MINUTE=2, MEDIA_ONLY="off", OTHER_ADDRESS="127.0.0.2"
    )
    username, password = relay.server.credential(LABEL)
    words = {LABEL, username, password, GUESS, FORBIDDEN_PEER, "payload-of", "prj_aaaaaaaaaaaa"}
    words |= {secret for name in SECRETS for secret in os.environ[name].split(",")}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        socket.create_server((HOST, 0)) as listener,
    ):
        peer.bind((HOST, 0))
        peer.settimeout(5)
        listener.settimeout(5)
        for transport, family in (("udp", 4), ("tcp", 4), ("tls", 6), ("dtls", 6)):
            with relay.client(transport, family, LABEL) as client:
                udp_call(client, peer)
                words |= {client.nonce.decode(), client.key.hex()}
        with relay.client("tcp", label=LABEL) as client:
            tcp_call(relay, client, listener)
        hostile(relay)
        left = relay.client("udp", label=LABEL)  # it never says that it goes
        left.allocate()
        left.socket.close()
    relay.server.process.send_signal(signal.SIGHUP)
    relay.until(lambda now: now("dropped_total", reason="authentication_failures") > 0)
    metrics = relay.get("/metrics").body.decode() + relay.get("/health").body.decode()
    relay.server.stop()
    events = {line["event"] for line in relay.events()}
    assert {"relay_started", "relay_silenced", "relay_stopped"} <= events
    assert "configuration_reloaded" in events or "configuration_kept" in events
    output = (relay.server.home / "output").read_text()
    assert found_in(output, words) == set()
    assert found_in(metrics, words) == set()
    # What is looked for would be found.
    planted = json.dumps({"event": "x", "client": HOST, "words": sorted(words), "at": "::1"})
    assert found_in(output + planted, words) == {*words, HOST, "::"}
