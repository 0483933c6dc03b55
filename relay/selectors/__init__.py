"""What is read of the relay: its books in the database, and what its processes say themselves."""

from __future__ import annotations

from relay.selectors.books import (
    Peer,
    SessionCursor,
    SessionPage,
    SessionRow,
    UsageSum,
    sessions_open_count,
    sessions_page,
    usage_sum,
    usage_unrated,
)
from relay.selectors.live import (
    LiveRefusals,
    LiveSessions,
    LiveStatus,
    nodes_live,
    refusals_live,
    relays_live,
    sessions_live,
)

__all__ = [
    "LiveRefusals",
    "LiveSessions",
    "LiveStatus",
    "Peer",
    "SessionCursor",
    "SessionPage",
    "SessionRow",
    "UsageSum",
    "nodes_live",
    "refusals_live",
    "relays_live",
    "sessions_live",
    "sessions_open_count",
    "sessions_page",
    "usage_sum",
    "usage_unrated",
]
