"""The UDP listener, called as the event loop calls it."""

from __future__ import annotations

import asyncio
import socket

from relay.core.effects import Effect
from relay.core.turn import TurnServer
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
        listener = UdpListener(endpoint.getsockname(), endpoint, turn, answered.extend, lambda: 0.0)
        listener._burst = DRAIN_MAX  # as after a while of much to do
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


def test_drain_takes_all_that_has_gathered_in_a_rest() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as endpoint,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        endpoint.bind(("127.0.0.1", 0))
        turn = TurnServer(settings_make(), bytes)
        listener = UdpListener(endpoint.getsockname(), endpoint, turn, lambda _: None, lambda: 0.0)
        for message in [channeldata_encode(0x4000, b"data")] * 20 + [b"\0", b"\1"]:
            client.sendto(message, endpoint.getsockname())
        assert listener.drain() == 1
        assert listener.drain(True) == 19  # requests are not counted
        assert turn.dropped == {"no allocation": 20, "malformed": 2}
