"""A credential that ends takes the call with it within two seconds, where that is asked (10)."""

from __future__ import annotations

import time

import pytest

from tests.relay.attacks.conftest import StartRelay
from tests.relay.attacks.observe import client_until, udp_socket, wall_seconds
from tests.relay.interop.servers import Server
from tests.turn_client import TurnError

CHANNEL = 0x4000


def last_relayed_at(server: Server, expires_at: int, until: float) -> float:
    """When data of an allocation was relayed for the last time: unix seconds."""
    last = 0.0
    with client_until(server, expires_at) as client, udp_socket() as peer:
        peer.settimeout(0.02)
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        while wall_seconds() < until:
            client.send_channel(CHANNEL, b"still here?")
            try:
                peer.recv(100)
                last = wall_seconds()
            except TimeoutError:
                pass
    return last


def test_cut_ends_the_call_within_two_seconds(relay_start: StartRelay) -> None:
    relay = relay_start(ON_EXPIRY="cut")
    expires_at = int(wall_seconds()) + 4
    last = last_relayed_at(relay, expires_at, expires_at + 2.5)
    assert expires_at - 1.0 < last < expires_at + 2.0


@pytest.mark.parametrize(("on_expiry", "refreshed"), [("drain", False), ("keep", True)])
def test_drain_and_keep_let_the_call_go_on(
    relay_start: StartRelay, on_expiry: str, refreshed: bool
) -> None:
    relay = relay_start(ON_EXPIRY=on_expiry)
    expires_at = int(wall_seconds()) + 4
    with client_until(relay, expires_at) as client, udp_socket() as peer:
        peer.settimeout(30)
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        time.sleep(expires_at + 1 - wall_seconds())
        client.send_channel(CHANNEL, b"still here")
        assert peer.recv(100) == b"still here"
        if refreshed:
            assert client.refresh(600) == 600
        else:
            with pytest.raises(TurnError, check=lambda error: error.code == 401):
                client.refresh(600)
