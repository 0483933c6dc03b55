"""Who floods the socket of all is thinned out in the kernel, and only he, and only meanwhile."""

from __future__ import annotations

import asyncio
import socket

import pytest

from relay.transports.crowd import HALVINGS_MAX, RELAX_SECONDS, SAMPLES, THINNED_MAX, Crowd

COUNT = 4000
HOSTS = {4: "127.0.0.1", 6: "::1"}


def udp(family: int) -> socket.socket:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    endpoint = socket.socket(kind, socket.SOCK_DGRAM)
    endpoint.bind((HOSTS[family], 0))
    return endpoint


def passing(sender: socket.socket, receiver: socket.socket) -> int:
    """How many of COUNT datagrams arrive."""
    arrived = 0
    receiver.setblocking(False)
    for _ in range(COUNT):
        sender.sendto(b"datagram", receiver.getsockname()[:2])
        try:
            assert receiver.recv(100) == b"datagram"
            arrived += 1
        except BlockingIOError:
            pass
    return arrived


async def crowd_of(family: int) -> None:
    with udp(family) as server, udp(family) as flooder, udp(family) as second, udp(family) as other:
        crowd = Crowd(server)
        for _ in range(2 * SAMPLES):
            crowd.sample(flooder.getsockname()[:2])
        for _ in range(SAMPLES):
            crowd.sample(second.getsockname()[:2])
        assert list(crowd.thinned.values()) == [2, 1]
        assert passing(flooder, server) == pytest.approx(COUNT / 4, rel=0.2)
        assert passing(second, server) == pytest.approx(COUNT / 2, rel=0.2)
        assert passing(other, server) == COUNT
        await asyncio.sleep(2 * RELAX_SECONDS + 2)  # and a margin
        assert crowd.thinned == {}
        assert passing(flooder, server) == COUNT


@pytest.mark.parametrize("family", [4, 6])
def test_a_part_of_a_flooder_passes_and_all_of_the_others(family: int) -> None:
    asyncio.run(crowd_of(family))


def test_clients_that_share_evenly_are_left_alone() -> None:
    async def even() -> None:
        with udp(4) as server:
            crowd = Crowd(server)
            for number in range(100 * SAMPLES):
                crowd.sample(("192.0.2.7", number % 3 + 1))
            assert crowd.thinned == {}

    asyncio.run(even())


def test_thinning_is_bounded_and_ends_with_the_socket() -> None:
    async def many() -> None:
        with udp(4) as server:
            crowd = Crowd(server)
            for number in range(THINNED_MAX + 5):
                for _ in range(SAMPLES * (HALVINGS_MAX + 2)):
                    crowd.sample(("192.0.2.7", number + 1))
            assert len(crowd.thinned) == THINNED_MAX
            assert set(crowd.thinned.values()) == {HALVINGS_MAX}
        await asyncio.sleep(RELAX_SECONDS + 0.1)  # closed: nothing goes wrong

    asyncio.run(many())
