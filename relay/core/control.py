"""What a running server is told: revoke, extend, limit, end.

Everything takes effect at once, for what lives and for what comes; what is returned has to be
carried out like every other effect.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from relay.core.allocation import Allocation
from relay.core.effects import AllocationEnded, Effect
from relay.core.holdings import DrainHeld, Holdings
from relay.core.limits import CredentialOverride, OnExpiry, ProjectLimits
from relay.core.tables import AllocationTable

CUT_OFF = "this relay hears nothing of its control channel and takes no new allocation"
DRAINING = "this relay is being drained and takes no new allocation"
# What one call ends of a drained relay; the rest follows at once, once others had their turn.
DRAIN_STEP = 256


class Control:
    """The control of one server; credentials are named by their ids.

    `until`, `expires_at` and `ends_at` are unix seconds, `now` is the server's steady time.

    Attributes:
        drain_ends_at: when a drain ends what is left then; None where it waits, or there is none.
        drain_ended_count: what this drain, or the last one, has ended so.
    """

    def __init__(self, table: AllocationTable, holdings: Holdings | None = None) -> None:
        self._table = table
        self._entitlements = table.entitlements
        self._holdings = holdings
        self.drain_ends_at: float | None = None
        self.drain_ended_count = 0
        held = holdings.drain() if holdings is not None else None
        if held is not None:  # the others are drained, and whoever was here before
            self.new_refuse(DRAINING)
            self.drain_ends_at = held.ends_at

    def project_limits_set(
        self, project: str, limits: ProjectLimits | None, now: float
    ) -> list[Effect]:
        """Set the limits of a project; None for the settings' default.

        Allocations beyond a lowered quota live on; every other limit holds for what lives too.

        Raises:
            EntitlementsFullError: no room; nothing has changed (so for those below).
        """
        self._entitlements.project_set(project, limits)
        self._entitlements.apply(project, None, now)
        return self.cut(now)

    def credential_revoke(
        self, project: str, credential: str, until: float, now: float
    ) -> list[Effect]:
        """Refuse a credential from now on, and end what it has allocated (`OnExpiry`: DRAIN waits).

        Args:
            project: its project.
            credential: its id.
            until: when this may be forgotten: no earlier than its username says it ends.
            now: the time.
        """
        found = self._entitlements.override(project, credential, until)
        revoked_at = found.revoked_at
        if revoked_at is None:
            revoked_at = self._entitlements.unix(now)
        return self._override(project, credential, replace(found, revoked_at=revoked_at), now)

    def credential_extend(
        self, project: str, credential: str, expires_at: float, until: float, now: float
    ) -> list[Effect]:
        """Move the end of a credential to `expires_at`, later or earlier; its username stays."""
        found = self._entitlements.override(project, credential, max(until, expires_at))
        return self._override(project, credential, replace(found, expires_at=expires_at), now)

    def credential_limit(
        self,
        project: str,
        credential: str,
        until: float,
        now: float,
        *,
        on_expiry: OnExpiry | None = None,
        allocations_max: int | None = None,
        bitrate_bps_max: int | None = None,
    ) -> list[Effect]:
        """Set the limits of one credential, beside its project's; the lower of two holds."""
        override = replace(
            self._entitlements.override(project, credential, until),
            on_expiry=on_expiry,
            allocations_max=allocations_max,
            bitrate_bps_max=bitrate_bps_max,
        )
        return self._override(project, credential, override, now)

    def session_end(self, allocation_id: int) -> list[Effect]:
        """End one allocation; nothing where it has ended already."""
        allocation = self._table.by_id.get(allocation_id)
        return [] if allocation is None else self._end([allocation])

    def new_refuse(self, reason: str) -> None:
        """Refuse every new allocation with 508, as long as the reason stands; others may stand too.

        What lives goes on: its requests are answered as ever.

        Args:
            reason: which; in words for those who ask why.
        """
        self._table.closed_because[reason] = None

    def new_accept(self, reason: str) -> None:
        """The reason stands no longer; nothing where it did not."""
        self._table.closed_because.pop(reason, None)

    def cut(self, now: float) -> list[Effect]:
        """End what is due: its credential has ended, or was revoked (see `OnExpiry`)."""
        due = self._entitlements.cut(now)
        # Those whose socket is being opened are looked at once it is open.
        return self._end([allocation for allocation in due if allocation.id in self._table.by_id])

    # --- the drain --------------------------------------------------------------------------------

    def drain(self, ends_at: float | None, now: float) -> list[Effect]:
        """Make no new allocation; what lives goes on, until `ends_at` or for as long as it wants.

        A client is told 508 (Insufficient Capacity): RFC 8656 section 7.4 then has it leave this
        server alone for a minute or try another one. 300 (Try Alternate) would need to know one.
        Said again it moves the end. Nothing but `undrain` opens the door again.
        """
        if not self.is_draining:
            self.drain_ended_count = 0
        self.new_refuse(DRAINING)
        self.drain_ends_at = ends_at
        if self._holdings is not None:
            self._holdings.drain_set(DrainHeld(ends_at))
        return self.drain_end(now)

    def undrain(self) -> None:
        """Make new allocations again."""
        self.new_accept(DRAINING)
        self.drain_ends_at = None
        if self._holdings is not None:
            self._holdings.drain_set(None)

    @property
    def is_draining(self) -> bool:
        """Whether there is a drain."""
        return DRAINING in self._table.closed_because

    @property
    def is_cut_off(self) -> bool:
        """Whether nothing is heard of the control channel."""
        return CUT_OFF in self._table.closed_because

    @property
    def is_drained(self) -> bool:
        """Whether a drain has done its work: no allocation is left, and none is made."""
        return self.is_draining and not self._entitlements.held_all_count

    def next_drain_end(self) -> float | None:
        """When `drain_end` should be asked next; None where nothing waits."""
        if self.drain_ends_at is None or not self._table.by_id:
            return None
        return self.drain_ends_at - self._entitlements.unix_offset_seconds

    def drain_end(self, now: float) -> list[Effect]:
        """End some of what outlives its drain; what is left is due at once."""
        if self.drain_ends_at is None or self._entitlements.unix(now) < self.drain_ends_at:
            return []
        outlived = list(islice(self._table.by_id.values(), DRAIN_STEP))
        self.drain_ended_count += len(outlived)
        return self._end(outlived)

    def _override(
        self, project: str, credential: str, override: CredentialOverride, now: float
    ) -> list[Effect]:
        self._entitlements.override_set(project, credential, override, now)
        self._entitlements.apply(project, credential, now)
        return self.cut(now)

    def _end(self, allocations: list[Allocation]) -> list[Effect]:
        for allocation in allocations:
            self._table.remove(allocation)
        return [AllocationEnded(allocation) for allocation in allocations]
