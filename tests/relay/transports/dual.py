"""A relay on loopback that relays to both families."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from relay.config import ClientLimits
from relay.core.policy import PeerPolicyRules
from tests.relay.transports.rig import HOSTS, PATIENCE_SECONDS, RunningRelay, relay_config
from tests.turn_client import UDP_PROTOCOL, Address, Attribute, Method, TurnClient

FAMILY = {4: b"\x01\0\0\0", 6: b"\x02\0\0\0"}


@contextmanager
def dual_relay_running(home: Path) -> Iterator[RunningRelay]:
    """Start one, wait for it, end it."""
    config = relay_config(home, None, ClientLimits(), ())
    turn = replace(
        config.turn,
        relay_addresses=tuple(HOSTS.values()),
        peer_rules=PeerPolicyRules(allowed=("127.0.0.0/8", "::1/128")),
    )
    running = RunningRelay(replace(config, turn=turn))
    running.thread.start()
    assert running.ready.wait(PATIENCE_SECONDS)
    try:
        yield running
    finally:
        running.stop()


def allocate(client: TurnClient, family: int) -> Address:
    """Make an allocation of one family; its relayed transport address."""
    attributes = [
        (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL),
        (Attribute.REQUESTED_ADDRESS_FAMILY, FAMILY[family]),
    ]
    return client.request(Method.ALLOCATE, attributes).address(Attribute.XOR_RELAYED_ADDRESS)
