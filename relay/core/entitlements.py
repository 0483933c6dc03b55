"""Who may hold how many allocations, and until when: quotas, limits and overrides in one place.

Quotas count by project, whatever usernames it mints, and in all processes of the relay. An
allocation is held before its port is taken and its socket is open, so that requests that arrive
together cannot pass as one.

Credentials end by the time of day (`expires_at`, `until`, `cut_at`: unix seconds); what is called
`now` is the steady time of the server.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heapify, heappop, heappush
from math import inf

from relay.core.allocation import TCP_PROTOCOL, Allocation
from relay.core.credentials import TurnUsername, username_format, username_parse
from relay.core.gate import Gate
from relay.core.holdings import Holdings, QuotaExceeded
from relay.core.limits import CredentialOverride, OnExpiry, ProjectLimits, lower
from relay.core.settings import TurnSettings

Credential = tuple[str, str]  # project and credential id
CUTS_SPARE = 64
# So many allocations are told their limits, or end, in one go: a few milliseconds.
AT_ONCE_MAX = 256


class EntitlementsFullError(Exception):
    """There is no room for what was to be set; what was set before holds on."""


class Entitlements:
    """The limits of projects, the overrides of credentials, and what each project holds.

    Attributes:
        unix_offset_seconds: what to add to `now` for the time of day.
    """

    def __init__(self, settings: TurnSettings, holdings: Holdings | None = None) -> None:
        self.unix_offset_seconds = 0.0
        self._holdings = holdings
        self._settings = settings
        self._projects: dict[str, ProjectLimits] = {}
        self._overrides: dict[Credential, CredentialOverride] = {}
        self._forget: list[tuple[float, Credential]] = []
        self._held: dict[str, dict[int, Allocation]] = {}
        self._held_all = 0
        self._cuts: list[tuple[float, int, str]] = []
        self._untold: dict[int, Allocation] = {}

    def unix(self, now: float) -> float:
        """The time of day, unix seconds."""
        return now + self.unix_offset_seconds

    def settings_replace(self, settings: TurnSettings) -> None:
        """Take other defaults; `apply_to` tells what lives."""
        self._settings = settings

    # --- what is set ------------------------------------------------------------------------------

    def project_set(self, project: str, limits: ProjectLimits | None) -> None:
        """Set the limits of a project; None stands for the settings' default.

        Raises:
            EntitlementsFullError: there are too many with limits of their own.
        """
        if limits is None:
            self._projects.pop(project, None)
            return
        if project not in self._projects and len(self._projects) >= self._settings.projects_max:
            raise EntitlementsFullError("too many projects have limits of their own")
        self._projects[project] = limits

    def override_set(
        self, project: str, credential: str, override: CredentialOverride, now: float
    ) -> None:
        """Set what holds for one credential, in the place of what was set before.

        Raises:
            EntitlementsFullError: there are too many overrides. A revocation is never pushed out.
        """
        while self._forget and self._forget[0][0] <= self.unix(now):
            until, key = heappop(self._forget)
            found = self._overrides.get(key)
            if found is not None and found.until <= until:
                del self._overrides[key]
        key = project, credential
        if key not in self._overrides and len(self._overrides) >= self._settings.overrides_max:
            raise EntitlementsFullError("too many credentials are revoked or changed")
        self._overrides[key] = override
        heappush(self._forget, (override.until, key))
        if len(self._forget) > 2 * self._settings.overrides_max:  # set again and again
            self._forget = [(entry.until, key) for key, entry in self._overrides.items()]
            heapify(self._forget)

    def override(self, project: str, credential: str, until: float) -> CredentialOverride:
        """What is set for a credential, or an empty one, to be changed and set (again).

        Args:
            project: its project.
            credential: its id.
            until: unix seconds; it is to be kept at least so long.
        """
        found = self._overrides.get((project, credential))
        if found is None:
            return CredentialOverride(until=until)
        return replace(found, until=max(found.until, until))

    @property
    def said_count(self) -> int:
        """How many projects and credentials have something of their own."""
        return len(self._projects) + len(self._overrides)

    # --- what holds -------------------------------------------------------------------------------

    def project_limits(self, project: str) -> ProjectLimits:
        """The limits of a project."""
        return self._projects.get(project, self._settings.project_limits)

    def limits(self, project: str, credential: str) -> ProjectLimits:
        """The limits of what one credential allocates, but for its own count."""
        limits = self.project_limits(project)
        override = self._overrides.get((project, credential))
        if override is None:
            return limits
        return replace(
            limits,
            on_expiry=override.on_expiry or limits.on_expiry,
            bitrate_bps_max=lower(limits.bitrate_bps_max, override.bitrate_bps_max),
        )

    def ends_at(self, username: TurnUsername) -> float:
        """When a credential ends, unix seconds: extended, or as its username says.

        A revoked one has ended, whatever the clock is set to later: at 0.
        """
        override = self._overrides.get((username.project, username.credential))
        if override is None:
            return username.expires_at
        if override.revoked_at is not None:
            return 0.0
        return username.expires_at if override.expires_at is None else override.expires_at

    def is_revoked(self, username: TurnUsername) -> bool:
        """Whether it was revoked."""
        override = self._overrides.get((username.project, username.credential))
        return override is not None and override.revoked_at is not None

    # --- what is held -----------------------------------------------------------------------------

    def hold(self, allocation: Allocation, now: float) -> str | None:
        """Count an allocation, and tell it its limits.

        Returns:
            The quota that it would exceed (486), in words, and nothing is counted; None where it
            fits.
        """
        held = self._held.get(allocation.owner, {})
        assert allocation.id not in held, "an allocation is held once"
        allocation.credential = credential_of(allocation)
        project_max = self.project_limits(allocation.owner).allocations_max
        exceeded = self._take(allocation.owner, allocation.credential, project_max)
        if exceeded is not None:
            return _words(exceeded)
        self._held.setdefault(allocation.owner, held)[allocation.id] = allocation
        self._held_all += 1
        self._apply(allocation, now)
        return None

    def renew(
        self, allocation: Allocation, username: TurnUsername, token_ends_at: float, now: float
    ) -> str | None:
        """Give an allocation another credential of its project.

        Returns:
            The quota of that credential that it would exceed (486), in words, and nothing has
            changed; None where it fits. The project holds no more than before.

        Raises:
            EntitlementsFullError: there is no room to count it.
        """
        project, credential = allocation.owner, username.credential
        allowed = self._credential_max(project, credential)
        exceeded = self._take(project, credential, None)
        if exceeded is not None:
            if exceeded.allowed != allowed:
                raise EntitlementsFullError("there is no room to count another credential")
            return _words(exceeded)
        if self._holdings is not None:
            self._holdings.give_back(project, allocation.credential)
        allocation.username = username_format(**username._asdict())
        allocation.credential = credential
        allocation.token_ends_at = token_ends_at
        self._apply(allocation, now)
        return None

    def _credential_max(self, project: str, credential: str) -> int | None:
        override = self._overrides.get((project, credential))
        return None if override is None else override.allocations_max

    def _take(self, project: str, credential: str, project_max: int | None) -> QuotaExceeded | None:
        """Count one more where others count too; else see whether it fits."""
        credential_max = self._credential_max(project, credential)
        if self._holdings is not None:
            return self._holdings.take(project, credential, project_max, credential_max)
        held = self._held.get(project, {})
        if project_max is not None and len(held) >= project_max:
            return QuotaExceeded(False, len(held), project_max)
        if credential_max is None:
            return None
        count = sum(found.credential == credential for found in held.values())
        return None if count < credential_max else QuotaExceeded(True, count, credential_max)

    def release(self, allocation: Allocation) -> None:
        """Give back what `hold` took; exactly once."""
        held = self._held[allocation.owner]
        del held[allocation.id]
        self._untold.pop(allocation.id, None)
        self._held_all -= 1
        if self._holdings is not None:
            self._holdings.give_back(allocation.owner, allocation.credential)
        if not held:
            del self._held[allocation.owner]

    def held_count(self, project: str) -> int:
        """How many allocations a project holds in this process."""
        return len(self._held.get(project, ()))

    def apply(self, project: str, credential: str | None, now: float) -> None:
        """Tell what a project, or one of its credentials, holds what has changed.

        Of many some: `cut` tells the others, and should be asked at once.
        """
        held = self._held.get(project, {})
        if credential is None:
            self._untold |= held
        else:
            self._untold |= {
                number: found for number, found in held.items() if found.credential == credential
            }
        self._tell(now)

    def _tell(self, now: float) -> None:
        for _ in range(min(len(self._untold), AT_ONCE_MAX)):
            _, allocation = self._untold.popitem()
            self._apply(allocation, now)

    def held(self) -> list[Allocation]:
        """Every allocation that is held."""
        return [allocation for held in self._held.values() for allocation in held.values()]

    @property
    def held_all_count(self) -> int:
        """How many allocations are held, by whichever project."""
        return self._held_all

    def apply_to(self, allocation: Allocation, now: float) -> None:
        """Tell one allocation its limits again, if it is held still."""
        if allocation.id in self._held.get(allocation.owner, {}):
            self._apply(allocation, now)

    def _apply(self, allocation: Allocation, now: float) -> None:
        limits = self.limits(allocation.owner, allocation.credential)
        parsed = username_parse(allocation.username)
        on_expiry = limits.on_expiry
        if on_expiry is OnExpiry.KEEP and parsed is not None and self.is_revoked(parsed):
            on_expiry = OnExpiry.CUT
        # Whatever the project says, nothing outlives its access token (RFC 7635 section 9).
        allocation.refresh_until, end_at = inf, allocation.token_ends_at
        if on_expiry is not OnExpiry.KEEP:
            end = inf if parsed is None else self.ends_at(parsed)
            allocation.refresh_until = end
            if on_expiry is OnExpiry.CUT:
                end_at = min(end, end_at)
        # Nor is a stream for media only: its bytes have no first one that could be looked at.
        is_barred = limits.media_only and allocation.protocol == TCP_PROTOCOL
        self._cut_set(allocation, 0.0 if is_barred else end_at)
        if limits.bitrate_bps_max is None and not limits.media_only:
            allocation.gate = None
        else:
            allocation.gate = Gate(limits.bitrate_bps_max, limits.media_only, now)

    # --- time -------------------------------------------------------------------------------------

    def _cut_set(self, allocation: Allocation, cut_at: float) -> None:
        """End it then. Cuts that nobody waits for any more are swept out."""
        if cut_at < allocation.cut_at:
            if len(self._cuts) > 2 * self._held_all + CUTS_SPARE:
                self._cuts = [
                    (live.cut_at, live.id, live.owner)
                    for held in self._held.values()
                    for live in held.values()
                    if live is not allocation and live.cut_at < inf
                ]
                heapify(self._cuts)
            heappush(self._cuts, (cut_at, allocation.id, allocation.owner))
        allocation.cut_at = cut_at

    def next_cut(self) -> float | None:
        """When `cut` should be asked next; None where nothing waits."""
        if self._untold:
            return -inf
        return self._cuts[0][0] - self.unix_offset_seconds if self._cuts else None

    def cut(self, now: float) -> list[Allocation]:
        """The allocations to end, as their credential has ended (see `OnExpiry`); of many some."""
        self._tell(now)
        due: dict[int, Allocation] = {}  # one may have been set to be cut more than once
        unix_now = self.unix(now)
        for _ in range(AT_ONCE_MAX):
            if not self._cuts or self._cuts[0][0] > unix_now:
                break
            _, number, owner = heappop(self._cuts)
            allocation = self._held.get(owner, {}).get(number)
            if allocation is None:
                continue
            if allocation.cut_at <= unix_now:
                due[number] = allocation
            elif allocation.cut_at < inf:  # extended since: wait for its new end
                heappush(self._cuts, (allocation.cut_at, number, owner))
        return list(due.values())


def credential_of(allocation: Allocation) -> str:
    """The id of the credential that its username names; empty where it names none."""
    parsed = username_parse(allocation.username)
    return "" if parsed is None else parsed.credential


def _words(exceeded: QuotaExceeded) -> str:
    whose = "credential" if exceeded.of_credential else "project"
    return f"the {whose} holds {exceeded.held} of {exceeded.allowed} allocations"
