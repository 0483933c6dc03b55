"""Daily range partitions: made before their day comes, dropped whole when their time is up.

Generic over table names: the app that owns a partitioned table (`PARTITION BY RANGE` over one
timestamptz column) creates its partitions and has them dropped here. A partition holds one day of
UTC, [00:00, 24:00), and is called `<table>_<yyyymmdd>`. What PostgreSQL says of a partition's
bounds is believed, never its name. Dropping a day is one catalogue change, however many rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db import OperationalError, connection, transaction
from psycopg2.errors import DeadlockDetected, LockNotAvailable
from psycopg2.sql import SQL, Composable, Identifier, Literal

# Below PostgreSQL's deadlock_timeout (1 s): when in doubt it is the purge that gives way.
LOCK_TIMEOUT_MILLISECONDS = 500
IDENTIFIER_BYTES_MAX = 63

_BOUNDS = re.compile(r"FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)")


class PartitionBusyError(Exception):
    """Somebody else uses the table for longer than a purge is willing to wait."""


@dataclass(frozen=True)
class Partition:
    """One partition of `table`: the rows with `lower` <= time < `upper`."""

    table: str
    name: str
    lower: datetime
    upper: datetime

    @property
    def day(self) -> date:
        """The day (UTC) at which it begins."""
        return self.lower.date()


def partition_list(*, table: str) -> list[Partition]:
    """The partitions of `table`, oldest first.

    Raises:
        ValueError: one of them is no time range (a DEFAULT partition, say): rows in it would
            escape retention, so nobody may overlook it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT child.relname, pg_get_expr(child.relpartbound, child.oid)
              FROM pg_inherits
              JOIN pg_class AS child ON child.oid = inhrelid
             WHERE inhparent = %s::regclass
            """,
            [_text(Identifier(table))],
        )
        rows: list[tuple[str, str]] = cursor.fetchall()
    return sorted((_partition(table, *row) for row in rows), key=lambda found: found.lower)


def partition_names(*, table: str) -> list[str]:
    """The names of the partitions of `table`, oldest first."""
    return [partition.name for partition in partition_list(table=table)]


def partition_create(*, table: str, day: date) -> str:
    """Make the partition of `table` for one day of UTC, unless it is there; its name.

    The new table is attached rather than created in place, which lets readers and writers of the
    other days go on meanwhile. Two callers at once are fine.

    Raises:
        ValueError: the name would be longer than PostgreSQL keeps.
        PartitionBusyError: a lock was not to be had in time.
    """
    name = f"{table}_{day:%Y%m%d}"
    if len(name.encode()) > IDENTIFIER_BYTES_MAX:
        raise ValueError(f"{name} is longer than PostgreSQL's {IDENTIFIER_BYTES_MAX} bytes")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"partitions of {table}"])
        if name in partition_names(table=table):
            return name
        _run(
            SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(
                Identifier(name), Identifier(table)
            )
        )
        _run(
            SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                Identifier(table),
                Identifier(name),
                Literal(_midnight(day)),
                Literal(_midnight(day + timedelta(days=1))),
            )
        )
    return name


def partitions_before(*, table: str, day: date) -> list[Partition]:
    """The partitions of `table` that hold nothing of `day` or later, oldest first."""
    return [found for found in partition_list(table=table) if found.upper <= _midnight(day)]


def partition_rows(*, name: str) -> int:
    """How many rows a partition holds."""
    with connection.cursor() as cursor:
        cursor.execute(_text(SQL("SELECT count(*) FROM {}").format(Identifier(name))))
        (rows,) = cursor.fetchone()
        return int(rows)


def partition_lock(*, name: str) -> None:
    """Let nobody write to a partition until the transaction ends, so that it can be judged.

    Raises:
        PartitionBusyError: a lock was not to be had in time.
    """
    _run(SQL("LOCK TABLE {} IN SHARE MODE").format(Identifier(name)))


def partition_drop(*, name: str) -> None:
    """Drop one partition: its rows, its indexes and its file on disk, when the transaction commits.

    Raises:
        PartitionBusyError: a lock was not to be had in time.
    """
    _run(SQL("DROP TABLE {}").format(Identifier(name)))


def partitions_drop_before(*, table: str, day: date) -> dict[str, int]:
    """Drop every partition of `table` that holds nothing of `day` or later, each on its own.

    Returns:
        The dropped partitions' names and how many rows each held.

    Raises:
        PartitionBusyError: a lock was not to be had in time; what went before it is gone.
    """
    dropped = {}
    for partition in partitions_before(table=table, day=day):
        with transaction.atomic():
            partition_lock(name=partition.name)
            dropped[partition.name] = partition_rows(name=partition.name)
            partition_drop(name=partition.name)
    return dropped


def _partition(table: str, name: str, bounds: str) -> Partition:
    found = _BOUNDS.fullmatch(bounds)
    if found is None:
        raise ValueError(f"{name} of {table} is no range of time: {bounds}")
    lower, upper = (datetime.fromisoformat(text).astimezone(UTC) for text in found.groups())
    return Partition(table, name, lower, upper)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _run(statement: Composable) -> None:
    """Run one statement that takes a lock, waiting for it no longer than the timeout."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MILLISECONDS}")
        try:
            cursor.execute(_text(statement))
        except OperationalError as error:
            if isinstance(error.__cause__, LockNotAvailable | DeadlockDetected):
                raise PartitionBusyError(str(error.__cause__).splitlines()[0]) from error
            raise
        cursor.execute("SET LOCAL lock_timeout TO DEFAULT")


def _text(statement: Composable) -> str:
    with connection.cursor() as cursor:
        return statement.as_string(cursor.cursor)
