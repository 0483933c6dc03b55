"""What a project and a credential may do: limits, and what was said of a credential after minting.

A username says when its credential ends; nothing more is needed to let it in. What an owner decides
later (revoke, extend, other limits) comes to the relay as an override, kept until it no longer
matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class OnExpiry(Enum):
    """What becomes of a live allocation once its credential has expired.

    CUT ends it then. DRAIN lets it live out the lifetime that it has, and refuses Refresh. KEEP
    lets it be refreshed for as long as the call lasts. No new allocation is made in any case.

    Where the credential was revoked, DRAIN does the same, and both others end the allocation at
    once: who revokes wants the call to end, and KEEP would let it go on for ever.
    """

    CUT = "cut"
    DRAIN = "drain"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class ProjectLimits:
    """The limits of one project; None is no limit.

    Attributes:
        on_expiry: see `OnExpiry`.
        allocations_max: how many allocations it may hold at once, whatever their usernames.
        bitrate_bps_max: bits of relayed data a second, for each allocation and direction; 0 lets
            nothing through, but nobody can set it: in the settings it stands for no limit.
        media_only: data that does not look like WebRTC's is dropped (RFC 7983).
    """

    on_expiry: OnExpiry = OnExpiry.KEEP
    allocations_max: int | None = None
    bitrate_bps_max: int | None = None
    media_only: bool = False


@dataclass(frozen=True, slots=True)
class CredentialOverride:
    """What holds for one credential instead of its username's word and its project's limits.

    Attributes:
        until: unix seconds; the override may be forgotten then. No earlier than the end that the
            username names, else a revoked credential would come back to life.
        revoked_at: unix seconds, or None.
        expires_at: unix seconds; in the place of the end that the username names.
        on_expiry, allocations_max, bitrate_bps_max: where not None, beside the project's; the
            lower of two maxima holds.
    """

    until: float
    revoked_at: float | None = None
    expires_at: float | None = None
    on_expiry: OnExpiry | None = None
    allocations_max: int | None = None
    bitrate_bps_max: int | None = None


def lower(first: int | None, second: int | None) -> int | None:
    """The lower of two maxima; None is no maximum."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)
