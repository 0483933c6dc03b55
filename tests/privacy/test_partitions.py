"""Daily partitions on a real PostgreSQL: bounds, names, locks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import psycopg2
import pytest
from django.db import connection, transaction

from privacy.retention import partitions
from privacy.retention.partitions import (
    Partition,
    PartitionBusyError,
    partition_create,
    partition_list,
    partition_names,
    partitions_drop_before,
)
from tests.privacy.conftest import log_add, log_days

NEW_YEAR = date(2026, 1, 1)


def test_partition_holds_one_day_of_utc(logs_table: str) -> None:
    name = partition_create(table=logs_table, day=NEW_YEAR)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert partition_list(table=logs_table) == [
        Partition(logs_table, name, start, start + timedelta(days=1))
    ]
    log_add(logs_table, "2026-01-01 00:00:00+00")
    log_add(logs_table, "2026-01-01 23:59:59.999999+00")
    with pytest.raises(Exception, match="no partition"), transaction.atomic():
        log_add(logs_table, "2026-01-02 00:00:00+00")


def test_bounds_do_not_depend_on_the_time_zone_of_the_connection(logs_table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'Pacific/Chatham'")
    partition_create(table=logs_table, day=NEW_YEAR)
    [partition] = partition_list(table=logs_table)
    assert partition.lower == datetime(2026, 1, 1, tzinfo=UTC)
    assert partition.day == NEW_YEAR


def test_partition_is_made_once(logs_table: str) -> None:
    first = partition_create(table=logs_table, day=NEW_YEAR)
    assert partition_create(table=logs_table, day=NEW_YEAR) == first
    assert partition_names(table=logs_table) == [f"{logs_table}_20260101"]


def test_partition_keeps_defaults_and_not_null_of_its_table(logs_table: str) -> None:
    partition_create(table=logs_table, day=NEW_YEAR)
    log_add(logs_table, "2026-01-01 12:00+00")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT word FROM {logs_table}")
        assert cursor.fetchall() == [("",)]


def test_only_whole_days_before_the_boundary_go(logs_table: str) -> None:
    for day in range(1, 5):
        partition_create(table=logs_table, day=date(2026, 1, day))
        log_add(logs_table, f"2026-01-0{day} 12:00+00")
    dropped = partitions_drop_before(table=logs_table, day=date(2026, 1, 3))
    assert dropped == {f"{logs_table}_20260101": 1, f"{logs_table}_20260102": 1}
    assert log_days(logs_table) == ["2026-01-03", "2026-01-04"]


def test_dropping_again_drops_nothing(logs_table: str) -> None:
    partition_create(table=logs_table, day=NEW_YEAR)
    assert partitions_drop_before(table=logs_table, day=date(2026, 1, 2))
    assert partitions_drop_before(table=logs_table, day=date(2026, 1, 2)) == {}


def test_default_partition_is_refused_as_it_would_escape_retention(logs_table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {logs_table}_rest PARTITION OF {logs_table} DEFAULT")
    with pytest.raises(ValueError, match="no range of time"):
        partition_list(table=logs_table)


def test_strange_table_name_is_quoted(db: None) -> None:
    table = 'odd "name"; DROP TABLE x'
    quoted = '"odd ""name""; DROP TABLE x"'
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {quoted} (at timestamptz) PARTITION BY RANGE (at)")
    name = partition_create(table=table, day=NEW_YEAR)
    assert partition_names(table=table) == [name]
    assert partitions_drop_before(table=table, day=date(2026, 1, 2)) == {name: 0}


def test_name_that_postgresql_would_cut_is_refused(db: None) -> None:
    with pytest.raises(ValueError, match="longer than"):
        partition_create(table="x" * 60, day=NEW_YEAR)


def test_drop_gives_way_to_a_reader_instead_of_blocking_writers(
    committed_logs_table: str,
    other_connection: psycopg2.extensions.connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT_MILLISECONDS", 20)
    name = partition_create(table=committed_logs_table, day=NEW_YEAR)
    with other_connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {committed_logs_table}")
    with pytest.raises(PartitionBusyError):
        partitions_drop_before(table=committed_logs_table, day=date(2026, 1, 2))
    assert partition_names(table=committed_logs_table) == [name]
    other_connection.rollback()
    assert partitions_drop_before(table=committed_logs_table, day=date(2026, 1, 2)) == {name: 0}


def test_partition_is_made_while_another_day_is_written(
    committed_logs_table: str, other_connection: psycopg2.extensions.connection
) -> None:
    partition_create(table=committed_logs_table, day=NEW_YEAR)
    with other_connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {committed_logs_table} VALUES ('2026-01-01 12:00+00')")
    assert partition_create(table=committed_logs_table, day=date(2026, 1, 2))
    other_connection.rollback()
