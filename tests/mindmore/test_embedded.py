"""The PostgreSQL and the Valkey that the tests themselves run on."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from django.db import connection


@pytest.mark.django_db
def test_database_is_a_postgresql_that_listens_on_no_port() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT inet_server_addr(), current_setting('listen_addresses')")
        assert cursor.fetchone() == (None, "")


@pytest.mark.django_db
def test_database_logs_neither_statements_nor_rows() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('log_min_error_statement'),"
            " current_setting('log_error_verbosity'), current_setting('log_statement')"
        )
        assert cursor.fetchone() == ("panic", "terse", "none")


def test_cache_keeps_what_it_is_given() -> None:
    cache.set("tests:embedded", "kept", timeout=5)
    assert cache.get("tests:embedded") == "kept"
