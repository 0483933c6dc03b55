"""Why something was dropped: every reason there is, for whoever counts."""

from __future__ import annotations

DROP_REASONS = (
    "authentication failures",
    "bitrate",
    "client timed out",
    "client too slow",
    "client unreachable",
    "connection refused",
    "malformed",
    "no allocation",
    "no channel",
    "no permission",
    "not media",
    "peer unreachable",
    "relayed address as client",
    "send refused",
    "too many clients",
    "too many peers",
    "unauthenticated answers",
    "unknown method",
)
