"""Other settings for a server that runs: for new requests at once, for what lives step by step.

An allocation keeps its relayed address and its keys, whatever changes. Peers that the new
policy refuses lose their permissions, channels and connections; new default limits hold for live
calls too.
"""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from functools import cache

from relay.core.addresses import SockAddress, host_pack
from relay.core.allocation import Allocation
from relay.core.control import Control
from relay.core.effects import Effect
from relay.core.guard import Guard, limits_make
from relay.core.requests.tcp import connection_lost
from relay.core.settings import TurnSettings
from relay.core.tables import AllocationTable

# Keys of live calls are made from the realm; the others are sizes and sockets made at the start.
FIXED = frozenset(
    {
        "realm",
        "nat_discovery",
        "answers_max",
        "connections_max",
        "projects_max",
        "refusals_per_project_max",
        "usernames_max",
    }
)
STEP = 128  # allocations that are held to new settings before others have their turn


def settings_changed(before: TurnSettings, after: TurnSettings) -> list[str]:
    """The names of the settings that differ."""
    names = (field.name for field in fields(TurnSettings))
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def settings_replace(
    table: AllocationTable, guard: Guard, control: Control, settings: TurnSettings
) -> Enforcement:
    """Give the parts of a server other settings.

    Returns:
        What holds the allocations that live to them; its steps are to be taken.

    Raises:
        ValueError: what cannot be used, or not while the server runs; nothing has changed.
    """
    changed = settings_changed(table.settings, settings)
    fixed = sorted(FIXED.intersection(changed))
    if fixed:
        raise ValueError(f"fixed while the server runs: {', '.join(fixed)}")
    limits_make(settings)
    table.settings_replace(settings)
    guard.settings_replace(settings)
    return Enforcement(table, control, changed)


class Enforcement:
    """Holds the allocations that live to changed settings, some at a time.

    Args:
        table: of the server, with its new settings.
        control: of the server.
        changed: the settings that differ.
    """

    def __init__(self, table: AllocationTable, control: Control, changed: list[str]) -> None:
        self._table = table
        self._control = control
        self._policy = "peer_rules" in changed
        self._limits = "project_limits" in changed
        concerned = self._policy or self._limits
        self._waiting = deque(table.entitlements.held() if concerned else ())
        self._host_is_refused = cache(self._refusal_of_host)

    @property
    def is_done(self) -> bool:
        """Whether every allocation has had its turn."""
        return not self._waiting

    def step(self, now: float) -> list[Effect]:
        """Hold some more to the new settings; what is returned has to be carried out."""
        effects: list[Effect] = []
        for _ in range(min(STEP, len(self._waiting))):
            allocation = self._waiting.popleft()
            if self._policy:
                effects += self._peers_part(allocation)
            if self._limits:
                self._table.entitlements.apply_to(allocation, now)
        return [*effects, *self._control.cut(now)]

    def _peers_part(self, allocation: Allocation) -> list[Effect]:
        allocation.peers_part(self._host_is_refused, self._peer_is_refused)
        return [
            effect
            for connection in self._table.connections.of_allocation(allocation)
            if self._peer_is_refused(connection.peer)
            for effect in connection_lost(self._table, connection)
        ]

    def _refusal_of_host(self, host: str) -> bool:
        return self._table.policy.refusal(host_pack(host), None) is not None

    def _peer_is_refused(self, peer: SockAddress) -> bool:
        host, port = peer
        return self._table.policy.refusal(host_pack(host), port) is not None
