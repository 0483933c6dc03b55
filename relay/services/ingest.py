"""Records into the database: each exactly once, whatever is repeated, reordered or cut short.

A batch is one transaction. A record is new, or a copy of one that is there (nothing happens), or it
has the key of one that is there and says something else: then the first stays and the other is
quarantined. So are records from the future, from more than a year ago, and of projects that do
not exist. The lock lets one batch in at a time, so that nobody sees half of another's.

A usage record carries its session's start: its row, its peers' and its session's are in the
partition of that day, and leave with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from django.db import transaction

from accounts.models import Project
from relay.metering.records import (
    AuthenticationRecord,
    MoveRecord,
    Record,
    RecordError,
    SessionRecord,
    UsageRecord,
    record_decode,
)
from relay.models import QuarantinedRecord, QuarantineReason
from relay.services.locks import JOURNAL, books_lock
from relay.services.partitions import partitions_ensure
from relay.services.store import (
    events_insert,
    moves_insert,
    peers_insert,
    sessions_insert,
    sessions_update,
    usage_insert,
    usage_strays_remove,
)

FUTURE_MAX: Final = timedelta(minutes=5)
PAST_MAX: Final = timedelta(days=366)
DAY_SECONDS: Final = 86400
EPOCH: Final = date(1970, 1, 1)
WITHOUT_ADDRESSES: Final = ("client_address", "client_port", "peers")

logger = logging.getLogger(__name__)


@dataclass
class Ingested:
    """What became of the records of a batch.

    Attributes:
        stored: new to the database.
        repeated: copies of what was there.
        quarantined: refused, by reason; each counts whenever it comes.
    """

    stored: int = 0
    repeated: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)

    def add(self, other: Ingested) -> None:
        """Count `other` in."""
        self.stored += other.stored
        self.repeated += other.repeated
        self.quarantined += other.quarantined


class _Batch:
    """A batch on its way: sorted by kind, first copies only; the refused aside."""

    def __init__(self, *, now: datetime, source: str) -> None:
        self.now = now
        self.source = source
        self.result = Ingested()
        self.sessions: dict[tuple[str, str, int], SessionRecord] = {}
        self.usage: dict[tuple[str, str, int, int], UsageRecord] = {}
        self.moves: dict[tuple[str, str, int, int], MoveRecord] = {}
        self.events: dict[tuple[str, str, int], AuthenticationRecord] = {}
        self.projects: dict[str, int] = {}
        self.refused: list[QuarantinedRecord] = []
        self._time_max = (now + FUTURE_MAX).timestamp()
        self._time_min = (now - PAST_MAX).timestamp()

    def gather(self, lines: Iterable[bytes]) -> None:
        """Read the lines and sort them."""
        for line in lines:
            try:
                record = record_decode(line)
            except RecordError as error:
                self._refuse_line(line, error)
            else:
                self._sort(record)

    def projects_resolve(self) -> None:
        """Look the projects up; refuse what names one that is not there.

        An authentication event of such a project stays, without it: it says that somebody knocked.
        """
        names = {record.project for record in self.sessions.values()}
        names.update(record.project for record in self.usage.values())
        names.update(record.project for record in self.moves.values())
        names.update(record.project for record in self.events.values() if record.project)
        self.projects = dict(
            Project.objects.filter(public_id__in=names).values_list("public_id", "pk")
        )
        for session_key, session in list(self.sessions.items()):
            if session.project not in self.projects:
                self.refuse(self.sessions.pop(session_key), QuarantineReason.UNKNOWN_PROJECT)
        for usage_key, usage in list(self.usage.items()):
            if usage.project not in self.projects:
                self.refuse(self.usage.pop(usage_key), QuarantineReason.UNKNOWN_PROJECT)
        for move_key, move in list(self.moves.items()):
            if move.project not in self.projects:
                self.refuse(self.moves.pop(move_key), QuarantineReason.UNKNOWN_PROJECT)

    def refuse(self, record: Record, reason: QuarantineReason) -> None:
        """Put a record aside, without its addresses."""
        payload: dict[str, object] = {
            name: value for name, value in record._asdict().items() if name not in WITHOUT_ADDRESSES
        }
        payload["record"] = type(record).__name__
        canonical = json.dumps(payload, sort_keys=True)
        self._refuse(reason, record.node, record.boot, payload, f"{reason}\n{canonical}".encode())

    def _refuse_line(self, line: bytes, error: RecordError) -> None:
        node, _, boot = self.source.rpartition("-")
        digest = b"%s\n%s\n%s" % (QuarantineReason.MALFORMED.encode(), self.source.encode(), line)
        payload: dict[str, object] = {"error": str(error)}
        self._refuse(QuarantineReason.MALFORMED, node, boot, payload, digest)

    def _refuse(
        self,
        reason: QuarantineReason,
        node: str,
        boot: str,
        payload: dict[str, object],
        identity: bytes,
    ) -> None:
        self.result.quarantined[reason] += 1
        self.refused.append(
            QuarantinedRecord(
                digest=hashlib.sha256(identity).hexdigest(),
                reason=reason,
                node=node,
                boot=boot,
                payload=payload,
                received_at=self.now,
            )
        )

    def _sort(self, record: Record) -> None:
        earliest, latest = _times(record)
        if latest > self._time_max:
            self.refuse(record, QuarantineReason.FUTURE)
        elif earliest < self._time_min:
            self.refuse(record, QuarantineReason.PAST)
        else:
            self._keep_first(self._first(record), record)
            if isinstance(record, SessionRecord):
                event = record.event
                self._keep_first(self._first(event), event)

    def _first(self, record: Record) -> Record:
        """The record of this batch that had this one's key first."""
        if isinstance(record, UsageRecord):
            return self.usage.setdefault(record[:4], record)
        if isinstance(record, SessionRecord):
            return self.sessions.setdefault(record[:3], record)
        if isinstance(record, MoveRecord):
            return self.moves.setdefault(record[:4], record)
        return self.events.setdefault(record[:3], record)

    def _keep_first(self, first: Record, record: Record) -> None:
        if first is record:
            return
        if first == record:
            self.result.repeated += 1
        else:
            self.refuse(record, QuarantineReason.CONTRADICTION)


def _times(record: Record) -> tuple[float, float]:
    """The first and the last time of what a record says."""
    if isinstance(record, UsageRecord):
        return record.interval_started_at, record.interval_ended_at
    if isinstance(record, SessionRecord):
        return record.started_at, record.started_at
    if isinstance(record, MoveRecord):
        return record.session_started_at, record.moved_at
    return record.occurred_at, record.occurred_at


def records_ingest(*, lines: Sequence[bytes], now: datetime, source: str) -> Ingested:
    """Store a batch of journal lines in one transaction.

    Args:
        lines: of any segments, in any order; copies are fine.
        now: the time that "from the future" is measured by.
        source: names the boot, "<node>-<boot>", for lines that don't say themselves.

    Raises:
        DatabaseError: nothing of the batch is stored; give it again.
        PartitionBusyError: likewise.
    """
    batch = _Batch(now=now, source=source)
    batch.gather(lines)
    _partitions_ensure(batch)
    with transaction.atomic():
        books_lock(JOURNAL)
        batch.projects_resolve()
        sessions = sessions_insert(list(batch.sessions.values()), batch.projects)
        usage = usage_insert(list(batch.usage.values()), batch.projects)
        moves = moves_insert(list(batch.moves.values()))
        events = events_insert(list(batch.events.values()), batch.projects)
        without = sessions_update(new_sessions=sessions.new, new_usage=usage.new)
        usage.reject(usage_strays_remove(without))
        peers_insert(usage.new)
        for outcome in (usage, sessions, moves, events):
            batch.result.stored += len(outcome.new)
            batch.result.repeated += outcome.repeated
            for record in outcome.contradictions:
                batch.refuse(record, QuarantineReason.CONTRADICTION)
        QuarantinedRecord.objects.bulk_create(batch.refused, ignore_conflicts=True)
    if batch.refused:
        _quarantined_say(batch.result.quarantined)
    return batch.result


def _quarantined_say(quarantined: Counter[str]) -> None:
    """One line: how many records, why, and where it says what to do."""
    reasons = (
        f"{count} ({QuarantineReason(reason).label})" for reason, count in quarantined.items()
    )
    logger.error(
        "usage records were refused and count for nobody: %s; see 'Quarantined records' in"
        " docs/operating.md",
        ", ".join(reasons),
    )


def _partitions_ensure(batch: _Batch) -> None:
    """Before the transaction: making a partition waits for no one but may be told to."""
    usage = batch.usage.values()
    for table, times in (
        ("relay_session", {session.started_at for session in batch.sessions.values()}),
        ("relay_usagerecord", {record.session_started_at for record in usage}),
        ("relay_peerflow", {record.session_started_at for record in usage if record.peers}),
        ("relay_sessionmove", {move.session_started_at for move in batch.moves.values()}),
        ("relay_authenticationevent", {event.occurred_at for event in batch.events.values()}),
    ):
        days = {seconds // DAY_SECONDS for seconds in times}
        partitions_ensure(table=table, days=[EPOCH + timedelta(days=number) for number in days])
