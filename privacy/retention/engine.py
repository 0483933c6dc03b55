"""The retention engine: holders say what is due, vetoes keep what may not go yet, the rest goes.

An app registers its holders in `personal_data.py`, mostly by way of `privacy.retention.holders`:

    holders.register(
        partition_holder(
            "relay.sessions", CONNECTION_LOGS, table="relay_session", holds=["relay.Session"]
        )
    )

An app above may keep a part for a while by a veto, which answers why (and the plan lists it):

    def usage_unbilled(part: Part) -> str | None:
        return "holds usage that is not billed yet" if ... else None

    holders.veto("relay.usage_records", usage_unbilled)

Each part goes in a transaction of its own, together with the `PurgeRecord` that says so; the veto
is asked inside it, with the part locked. What could not go is tried again by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from privacy.models import PurgeRecord
from privacy.registry import Registry
from privacy.retention.classes import RetentionClass
from privacy.retention.partitions import PartitionBusyError

BUSY_ATTEMPTS = 3
BUSY_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Part:
    """A portion of what a holder holds that is due: one day's partition, say.

    Attributes:
        name: how records and plans name it; it says nothing about a person.
        before: all of it is older than this.
        rows: how many rows it holds.
        kept_because: why it stays for now; empty when it may go.
    """

    name: str
    before: datetime
    rows: int
    kept_because: str = ""


Veto = Callable[[Part], str | None]


def _no_lock(part: Part) -> None:
    """For holders whose parts nobody writes to."""


@dataclass(frozen=True)
class Holder:
    """Somewhere personal data lies that ends by the calendar.

    Attributes:
        name: "app.things", unique.
        retention: the class whose period it keeps.
        holds: the registry's labels of the models and places it answers for.
        plan: the parts that are due at a moment; changes nothing.
        purge: deletes one part; answers how many rows went.
        lock: keeps others from writing to a part until the transaction ends.
    """

    name: str
    retention: RetentionClass
    holds: tuple[str, ...]
    plan: Callable[[datetime], Sequence[Part]]
    purge: Callable[[Part], int]
    lock: Callable[[Part], None] = _no_lock


@dataclass(frozen=True)
class Outcome:
    """What became, or in a plan would become, of one part of one holder."""

    holder: str
    retention_class: str
    part: Part


class Holders:
    """What the installed apps registered; the one of the running service is `holders`."""

    def __init__(self) -> None:
        self._holders: dict[str, Holder] = {}
        self._vetoes: dict[str, list[Veto]] = {}

    def register(self, holder: Holder) -> None:
        """Add a holder.

        Raises:
            ImproperlyConfigured: the name is taken, or its class has no period.
        """
        if holder.name in self._holders:
            raise ImproperlyConfigured(f"holder {holder.name} is registered twice")
        if holder.retention.period is None:
            raise ImproperlyConfigured(
                f"holder {holder.name}: {holder.retention.name} does not end by the calendar"
            )
        self._holders[holder.name] = holder

    def veto(self, holder: str, veto: Veto) -> None:
        """Let `veto` be asked about each part of a holder, which may be registered later."""
        self._vetoes.setdefault(holder, []).append(veto)

    def problems(self, registry: Registry) -> list[str]:
        """Personal data with a period that nobody deletes, and vetoes about nobody; one a line."""
        deleted = {
            (label, holder.retention) for holder in self._holders.values() for label in holder.holds
        }
        undeleted = {
            (label, declared.retention.name)
            for label, _, declared in registry.personal_fields()
            if declared.retention.period is not None and (label, declared.retention) not in deleted
        }
        return [
            *(
                f"{label} holds {name} data, but no retention holder deletes it: "
                "register one with privacy.retention.engine.holders"
                for label, name in sorted(undeleted)
            ),
            *(
                f"a veto names the holder {name}, which nobody registered"
                for name in sorted(set(self._vetoes).difference(self._holders))
            ),
        ]

    def plan(self, *, now: datetime) -> list[Outcome]:
        """What is due at `now`, with the reason where a part would stay; changes nothing."""
        return [
            Outcome(holder.name, holder.retention.name, self._judged(holder, part))
            for holder in self._sorted()
            for part in holder.plan(now)
        ]

    def purge(self, *, now: datetime) -> list[Outcome]:
        """Delete what is due at `now`; a second run right after the first deletes nothing.

        Raises:
            ExceptionGroup: holders that failed; those after them had their turn all the same.
        """
        outcomes, errors = [], []
        for holder in self._sorted():
            try:
                for part in holder.plan(now):
                    done = self._part_purge(holder, part, now)
                    outcomes.append(Outcome(holder.name, holder.retention.name, done))
            except Exception as error:
                error.add_note(f"retention holder {holder.name}")
                errors.append(error)
        if errors:
            raise ExceptionGroup("retention holders failed", errors)
        return outcomes

    def _sorted(self) -> list[Holder]:
        return [holder for _, holder in sorted(self._holders.items())]

    def _judged(self, holder: Holder, part: Part) -> Part:
        reasons = [veto(part) for veto in self._vetoes.get(holder.name, ())]
        return replace(part, kept_because="; ".join(reason for reason in reasons if reason))

    def _part_purge(self, holder: Holder, part: Part, now: datetime) -> Part:
        for attempt in range(BUSY_ATTEMPTS):
            if attempt:
                time.sleep(BUSY_PAUSE_SECONDS)
            try:
                return self._part_purge_once(holder, part, now)
            except PartitionBusyError:
                continue
        return replace(part, kept_because="in use; the next run tries again")

    def _part_purge_once(self, holder: Holder, part: Part, now: datetime) -> Part:
        with transaction.atomic():
            holder.lock(part)
            judged = self._judged(holder, part)
            if judged.kept_because:
                return judged
            gone = replace(part, rows=holder.purge(part))
            PurgeRecord.objects.create(
                holder=holder.name,
                retention_class=holder.retention.name,
                part=part.name,
                rows=gone.rows,
                purged_at=now,
            )
            return gone


holders = Holders()
