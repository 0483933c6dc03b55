"""The UDP listener, called as the event loop calls it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relay.core.effects import Effect
from relay.core.turn import TurnServer
from relay.transports.batches import SLOTS, ReceiveBatch, name_decode
from relay.transports.udp import CONTROL_MAX, DRAIN_MAX, UdpListener
from tests.relay.fake_link import settings_make
from tests.turn_client import Kind, Method, channeldata_encode, message_encode

COUNT = 150


async def drains_of_a_storm() -> list[int]:
    """How many requests each drain answers where many wait."""
    answered: list[Effect] = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as endpoint,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        endpoint.bind(("127.0.0.1", 0))
        turn = TurnServer(settings_make(), bytes)
        listener = UdpListener(
            endpoint.getsockname(), endpoint, turn, answered.extend, lambda: 0.0, None
        )
        for _ in range(COUNT):
            client.sendto(message_encode(Method.BINDING, Kind.REQUEST), endpoint.getsockname())
        steps: list[int] = []
        while not steps or steps[-1]:
            before = len(answered)
            listener.drain()
            steps.append(len(answered) - before)
    return steps


def test_storm_of_requests_lets_others_have_their_turn() -> None:
    steps = asyncio.run(drains_of_a_storm())
    assert sum(steps) == COUNT
    assert max(steps) == CONTROL_MAX


@contextmanager
def listening(host: str) -> Iterator[tuple[UdpListener, TurnServer, socket.socket]]:
    """A listener, its server, and a client's socket that is connected to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as endpoint,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        endpoint.bind((host, 0))
        client.connect(endpoint.getsockname())
        turn = TurnServer(settings_make(), bytes)
        address = endpoint.getsockname()[:2]
        yield UdpListener(address, endpoint, turn, lambda _: None, lambda: 0.0, None), turn, client


def test_drain_takes_all_that_has_gathered() -> None:
    with listening("127.0.0.1") as (listener, turn, client):
        for message in [channeldata_encode(0x4000, b"data")] * 20 + [b"\0", b"\1", b""]:
            client.send(message)
        assert listener.drain() == 20  # requests are not counted
        assert turn.dropped == {"no allocation": 20, "malformed": 3}
        assert listener.drain() == 0


def test_what_one_drain_leaves_the_next_one_takes() -> None:
    with listening("127.0.0.1") as (listener, turn, client):
        for _ in range(DRAIN_MAX + 1):
            client.send(channeldata_encode(0x4000, b""))
        assert listener.drain() == DRAIN_MAX
        assert listener.drain() == 1
        assert turn.dropped == {"no allocation": DRAIN_MAX + 1}


@pytest.mark.parametrize(
    ("length", "at_once"), [(1, SLOTS), (20, SLOTS - 1), (1200, SLOTS), (65507, 2)]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_come_whole_with_who_sent_them(host: str, length: int, at_once: int) -> None:
    with listening(host) as (_, _, client):
        batch = ReceiveBatch(client)
        with socket.socket(client.family, socket.SOCK_DGRAM) as other:
            other.connect(client.getsockname())
            client.connect(other.getsockname())
            sent = [bytes([number]) * length for number in range(at_once + 1)]
            found = []
            for datagrams in (sent[:at_once], sent[at_once:], []):
                for datagram in datagrams:
                    other.send(datagram)
                taken = batch.receive()
                assert taken == len(datagrams)
                for slot, _, (size,), (name, _, _) in batch.datagrams(taken):
                    found.append(bytes(slot[:size]))
                    assert name_decode(name) == other.getsockname()[:2]
            assert found == sent


def test_address_of_a_link_keeps_its_scope() -> None:
    scoped = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", 5000, 0)
    scoped += socket.inet_pton(socket.AF_INET6, "fe80::1") + struct.pack("=I", 3)
    assert name_decode(scoped) == ("fe80::1%3", 5000)


def test_error_of_a_socket_is_told_once() -> None:
    with listening("127.0.0.1") as (listener, _, client):
        batch = ReceiveBatch(client)
        listener.socket.close()
        client.send(b"to nobody")  # on loopback the ICMP error is there at once
        with pytest.raises(ConnectionRefusedError):
            batch.receive()
        assert batch.receive() == 0
