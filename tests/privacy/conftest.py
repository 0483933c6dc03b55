from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest
from django.db import connection

LOGS = "privacy_test_logs"


@pytest.fixture
def logs_table(db: None) -> Iterator[str]:
    """A table of daily partitions that exists during one test."""
    yield from logs_table_make()


@pytest.fixture
def committed_logs_table(transactional_db: None) -> Iterator[str]:
    """As `logs_table`, visible to other connections."""
    yield from logs_table_make()


@pytest.fixture
def other_connection() -> Iterator[psycopg2.extensions.connection]:
    """Somebody else at the same database."""
    other = psycopg2.connect(**connection.get_connection_params())
    yield other
    other.close()


def logs_table_make() -> Iterator[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {LOGS} (occurred_at timestamptz NOT NULL, word text NOT NULL DEFAULT '')"
            " PARTITION BY RANGE (occurred_at)"
        )
    yield LOGS
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {LOGS}")


def log_add(table: str, occurred_at: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} (occurred_at) VALUES (%s)", [occurred_at])


def log_days(table: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT occurred_at::date::text FROM {table} ORDER BY 1")
        return [day for (day,) in cursor.fetchall()]
