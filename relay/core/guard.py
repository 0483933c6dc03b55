"""Who gets no answer at all, and what is counted and kept of refusals.

Two limits. Answers to those who have not shown that they are where they say: so many a second to a
/24 or /64, or the relay would be a reflector. And failures of those who have: so many a minute from
one address. Whoever then knows a password is still let in (it is 160 bits long and not chosen by
people: guessing is hopeless, while one faulty device must not lock out all who share its address).
"""

from __future__ import annotations

from collections import Counter

from relay.core.addresses import SPOOFABLE_TRANSPORT, FiveTuple
from relay.core.allocation import Allocation
from relay.core.authentication import Refused
from relay.core.effects import Effect, Silenced
from relay.core.gate import NOT_MEDIA
from relay.core.refusals import METHOD_NAMES, Refusal, Refusals, rule_in_words
from relay.core.settings import TurnSettings
from relay.core.throttle import SilenceLog, SlidingLimit, address_of, network_of

UNAUTHENTICATED_ANSWERS = "unauthenticated answers"
FAILURES = "authentication failures"


class Guard:
    """The limits on answers, and the refusals of one server.

    Attributes:
        received: STUN messages of clients by method and class; at most 16 384 kinds.
        flagged: packets that "media only" dropped, by project; '' stands for those beyond a bound.
        refused: error responses by code, for the metrics; also those that were not sent.
        refusals: of requests whose password was right.
    """

    def __init__(self, settings: TurnSettings, dropped: Counter[str]) -> None:
        self.received: Counter[tuple[int, int]] = Counter()
        self.flagged: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.refusals = Refusals(settings.refusals_per_project_max, settings.projects_max)
        self._settings = settings
        self._answers, self._failures = limits_make(settings)
        self._log = SilenceLog()
        self._dropped = dropped
        self._projects_max = settings.projects_max

    def settings_replace(self, settings: TurnSettings) -> None:
        """Take other limits; what was counted against them is forgotten where they have changed.

        Raises:
            ValueError: a limit that cannot be kept; nothing has changed.
        """
        answers, failures = limits_make(settings)
        before, self._settings = self._settings, settings
        if settings.unauthenticated_answers_per_second != before.unauthenticated_answers_per_second:
            self._answers = answers
        if settings.failures_per_minute != before.failures_per_minute:
            self._failures = failures

    def silence_unproven(self, five_tuple: FiveTuple, now: float) -> list[Effect] | None:
        """None where a source that has proved nothing may be answered, else what to do instead."""
        if five_tuple.transport != SPOOFABLE_TRANSPORT:
            return None
        if self._answers.allows(network_of(five_tuple.client[0]), now):
            return None
        return self._silence(UNAUTHENTICATED_ANSWERS, now)

    def silence_small(self, now: float) -> list[Effect]:
        """What to do instead where the request was too small for any answer."""
        return self._silence(UNAUTHENTICATED_ANSWERS, now)

    def silence_refused(
        self, five_tuple: FiveTuple, refused: Refused, now: float
    ) -> list[Effect] | None:
        """The same for a request that is refused before anybody looks at what it asks."""
        if not refused.address_is_proven:
            return self.silence_unproven(five_tuple, now)
        if refused.outcome is None or self._failures.allows(address_of(five_tuple.client[0]), now):
            return None
        return self._silence(FAILURES, now)

    def note(
        self, method: int, code: int, project: str | None, username: str, rule: str, now: float
    ) -> None:
        """Count a refusal, and keep it where the password was right: `username` is not empty."""
        self.refused[code] += 1
        if not username or project is None:
            return
        self.refusals.keep(
            Refusal(
                occurred_at=now,
                project=project,
                username=username,
                method=METHOD_NAMES.get(method, f"method 0x{method:03x}"),
                code=code,
                rule=rule_in_words(method, code, rule),
            )
        )

    # --- data -------------------------------------------------------------------------------------

    def drops_from_client(
        self, allocation: Allocation, data: bytes | memoryview, now: float
    ) -> bool:
        """Whether the allocation's gate holds back data that goes to a peer."""
        gate = allocation.gate
        if gate is None:
            return False
        return self.drop(allocation, gate.from_client.refusal(data, 0, len(data), now))

    def drops_from_peer(self, allocation: Allocation, data: bytes | memoryview, now: float) -> bool:
        """Whether the allocation's gate holds back data that goes to the client."""
        gate = allocation.gate
        if gate is None:
            return False
        return self.drop(allocation, gate.from_peer.refusal(data, 0, len(data), now))

    def drop(self, allocation: Allocation, refusal: str | None) -> bool:
        """Count what a gate has refused; whether it did."""
        if refusal is None:
            return False
        self._dropped[refusal] += 1
        if refusal == NOT_MEDIA:
            is_named = allocation.owner in self.flagged or len(self.flagged) < self._projects_max
            self.flagged[allocation.owner if is_named else ""] += 1
        return True

    def _silence(self, limit: str, now: float) -> list[Effect]:
        self._dropped[limit] += 1
        if self._log.is_due(limit, now):
            return [Silenced(limit, self._dropped[limit])]
        return []


def limits_make(settings: TurnSettings) -> tuple[SlidingLimit, SlidingLimit]:
    """The limits on unauthenticated answers and on failures.

    Raises:
        ValueError: one of them cannot be kept.
    """
    return (
        SlidingLimit(settings.unauthenticated_answers_per_second, 1.0),
        SlidingLimit(settings.failures_per_minute, 60.0),
    )
