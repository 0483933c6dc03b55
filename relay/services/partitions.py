"""The daily partitions of the connection logs: there before their first row."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from privacy.retention.partitions import partition_create, partition_list

PARTITIONED_TABLES = (
    "relay_session",
    "relay_peerflow",
    "relay_sessionmove",
    "relay_authenticationevent",
    "relay_usagerecord",
)
DAYS_AHEAD = 3


def partitions_ensure(*, table: str, days: Iterable[date]) -> None:
    """Make the partitions of `table` for `days` (UTC) that are not there.

    Raises:
        PartitionBusyError: a lock was not to be had in time.
    """
    missing = set(days)
    if missing:
        missing.difference_update(partition.day for partition in partition_list(table=table))
    for day in sorted(missing):
        partition_create(table=table, day=day)


def partitions_create_ahead(*, now: datetime) -> None:
    """Make the partitions of today and the next days; a second time changes nothing."""
    days = [now.date() + timedelta(days=offset) for offset in range(DAYS_AHEAD + 1)]
    for table in PARTITIONED_TABLES:
        partitions_ensure(table=table, days=days)
