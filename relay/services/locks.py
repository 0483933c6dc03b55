"""Locks of the books: who holds one is alone until his transaction ends."""

from __future__ import annotations

from django.db import connection

JOURNAL = "relay: the journal is being shipped"
USAGE_HOURS = "relay: usage by the hour is being written"


def books_lock(name: str) -> None:
    """Wait for a lock by name; PostgreSQL frees it when the transaction ends, however it ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
