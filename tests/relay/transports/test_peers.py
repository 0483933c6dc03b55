"""Peers' connections where the machine has no room for them: RFC 6062 section 5.3."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from relay.core.addresses import SockAddress
from relay.core.allocation import RelayedAddress
from relay.transports import peers
from relay.transports.peers import PeerStreams
from tests.ports import free_port
from tests.relay.fake_link import World, settings_make
from tests.relay.transports.rig import HOSTS, PATIENCE_SECONDS
from tests.turn_client import Attribute, Method

TCP = (Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")


class Listener(socket.socket):
    """A socket that accepts nobody while the process has no descriptor left."""

    full = True

    def accept(self) -> tuple[socket.socket, Any]:
        if Listener.full:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def listener_make(_: SockAddress) -> Listener:
    return Listener(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PeerStreams, SockAddress]]:
    """What listens at a relayed address, and that."""
    monkeypatch.setattr(peers, "_socket", listener_make)
    monkeypatch.setattr(Listener, "full", True)
    world = World(settings_make(tcp_relay=True))
    client = world.client()
    client.transport = "tcp"
    client.request(Method.ALLOCATE, [TCP])
    made = PeerStreams(
        world.turn,
        world.perform,
        lambda _: None,
        lambda _: None,
        lambda _: None,
        lambda: world.now,
    )
    relayed = RelayedAddress(HOSTS[4], free_port(), world.now + 600)
    made.listen(world.started[0], relayed)
    yield made, relayed.sockaddr
    made.close_all()


def is_asked_for(streams: PeerStreams, seconds: float = 0) -> bool:
    """Whether the event loop would call it."""
    return bool(select.select([streams], [], [], seconds)[0])


def test_listener_that_has_no_descriptor_rests_and_goes_on(
    streams: tuple[PeerStreams, SockAddress],
) -> None:
    made, relayed = streams
    with socket.create_connection(relayed, PATIENCE_SECONDS) as peer:
        assert is_asked_for(made, PATIENCE_SECONDS)
        made.drain()
        assert not is_asked_for(made)
        made.wake()
        assert is_asked_for(made)
        made.drain()
        Listener.full = False
        made.wake()
        made.drain()
        assert peer.recv(1) == b""  # it has no permission


def test_listener_that_rests_may_be_closed(streams: tuple[PeerStreams, SockAddress]) -> None:
    made, relayed = streams
    with socket.create_connection(relayed, PATIENCE_SECONDS):
        assert is_asked_for(made, PATIENCE_SECONDS)
        made.drain()
        (_, allocation) = next(iter(made._listeners.values()))
        made.close_allocation(allocation)
        made.wake()
        assert not is_asked_for(made)
