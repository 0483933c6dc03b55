"""The two usual holders: a table of daily partitions, and rows past their time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import QuerySet

from privacy.retention.classes import RetentionClass
from privacy.retention.engine import Holder, Part
from privacy.retention.partitions import (
    partition_drop,
    partition_lock,
    partition_rows,
    partitions_before,
)


def partition_holder(
    name: str, retention: RetentionClass, *, table: str, holds: Iterable[str]
) -> Holder:
    """A table of daily partitions (UTC), each dropped as soon as its day lies the period back.

    With 30 days, the logs of 1 January go on 31 January from 00:00 UTC: all of a day goes when
    its first moment has become 30 days old, so that nothing is older when the job has run.
    """
    period = _period(retention)

    def plan(now: datetime) -> list[Part]:
        first_kept = now.astimezone(UTC).date() - period + timedelta(days=1)
        return [
            Part(partition.name, partition.upper, partition_rows(name=partition.name))
            for partition in partitions_before(table=table, day=first_kept)
        ]

    def purge(part: Part) -> int:
        rows = partition_rows(name=part.name)
        partition_drop(name=part.name)
        return rows

    return Holder(
        name, retention, tuple(holds), plan, purge, lock=lambda part: partition_lock(name=part.name)
    )


def row_holder(
    name: str,
    retention: RetentionClass,
    *,
    due: Callable[[datetime], QuerySet[Any]],
    holds: Iterable[str],
) -> Holder:
    """Rows of a table, deleted with what hangs on them.

    Args:
        name: as in `Holder`.
        retention: as in `Holder`; `due` counts its period, or a shorter one.
        due: the rows that are to go at a moment.
        holds: as in `Holder`.
    """

    def plan(now: datetime) -> list[Part]:
        rows = due(now).count()
        return [Part(f"due by {now.astimezone(UTC):%Y-%m-%dT%H:%MZ}", now, rows)] if rows else []

    def purge(part: Part) -> int:
        rows = due(part.before)
        _, deleted = rows.delete()
        return deleted.get(rows.model._meta.label, 0)

    return Holder(name, retention, tuple(holds), plan, purge)


def _period(retention: RetentionClass) -> timedelta:
    if retention.period is None:
        raise ValueError(f"{retention.name} does not end by the calendar")
    return retention.period
