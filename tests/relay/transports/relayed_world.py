"""The core on a fake link to its clients, with real sockets on the peers' side."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from relay.core.addresses import SockAddress
from relay.core.allocation import Allocation
from relay.core.effects import AllocationEnded, CloseReserved, OpenRelayed
from relay.core.policy import PeerPolicyRules
from relay.transports.moderation import Moderation
from relay.transports.relayed import RelayedSockets
from relay.transports.rings import Ring
from tests.relay.fake_link import World, settings_make

PATIENCE_SECONDS = 30
LOOPBACK = ("127.0.0.1", "::1")
# Of several processes that run tests each has an address whose ports nobody else uses.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
RELAY_ADDRESSES = (f"127.0.77.{WORKER + 1}", "::1")


class RelayedWorld(World):
    """The fake link with real sockets on the peers' side.

    Attributes:
        openings_failed: ports that something else had.
    """

    openings_failed = 0

    def __init__(
        self,
        ring: Ring | None,
        moderation: Moderation | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(
            settings_make(
                relay_addresses=RELAY_ADDRESSES,
                relay_ports=(50000, 60000),
                peer_rules=PeerPolicyRules(allowed=("127.0.0.0/8", "::1/128")),
            )
        )
        self.sockets = RelayedSockets(
            self.turn, self.deliver, lambda: self.now, moderation or Moderation(0), ring, sleep
        )

    def open_relayed(self, effect: OpenRelayed) -> None:
        allocation = effect.allocation
        try:
            self.sockets.open(allocation, effect.relayed, effect.reserved)
        except OSError:
            self.openings_failed += 1
            self.perform(self.turn.relayed_failed(allocation, self.now, another_may_do=True))
            return
        self.relayed[effect.relayed.sockaddr] = allocation
        self.perform(self.turn.relayed_opened(allocation, self.now))

    def handle_ended(self, effect: AllocationEnded) -> None:
        super().handle_ended(effect)
        self.sockets.close_allocation(effect.allocation)

    def close_reserved(self, effect: CloseReserved) -> None:
        self.sockets.close_reserved(effect.reserved)

    def send_to_peer(
        self, allocation: Allocation, data: bytes, peer: SockAddress, *, dont_fragment: bool = False
    ) -> None:
        self.sockets.send(allocation, data, peer, dont_fragment=dont_fragment)

    def drain_until(self, done: Callable[[], bool]) -> None:
        """Let the relayed sockets take in what comes, within reason."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done() and time.monotonic() < deadline:
            select.select([self.sockets], [], [], 0.05)
            self.sockets.drain()
        assert done()
