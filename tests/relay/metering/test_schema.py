"""The tables of the connection logs hold what section 3 of the policy lists, and nothing else."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.db import connection

from privacy.registry import PersonalField, registry
from relay.models import (
    AuthenticationEvent,
    PeerFlow,
    Session,
    SessionMove,
    UsageHour,
    UsageRecord,
)

pytestmark = pytest.mark.django_db

LOGS: list[type] = [Session, PeerFlow, SessionMove, AuthenticationEvent, UsageRecord]
KEYS = {"node", "boot", "allocation"}
COUNTERS = {
    "client_received_bytes",
    "client_sent_bytes",
    "peer_received_bytes",
    "peer_sent_bytes",
}


def columns(table: str) -> set[str]:
    with connection.cursor() as cursor:
        return {
            column.name for column in connection.introspection.get_table_description(cursor, table)
        }


@pytest.mark.claim("S-11")
def test_session_has_exactly_the_fields_of_the_policy() -> None:
    assert columns("relay_session") == {
        *KEYS,
        "project_id",
        "started_at",
        "ended_at",
        "client_address",
        "client_port",
        "transport",
        *COUNTERS,
    }


@pytest.mark.claim("S-11")
def test_peer_flow_has_exactly_the_fields_of_the_policy() -> None:
    assert columns("relay_peerflow") == {*KEYS, "peer_address", "peer_port", "session_started_at"}


@pytest.mark.claim("S-11")
def test_session_move_has_exactly_the_fields_of_the_policy() -> None:
    assert columns("relay_sessionmove") == {
        *KEYS,
        "number",
        "session_started_at",
        "moved_at",
        "client_address",
        "client_port",
        "transport",
    }
    field = registry.field("relay.SessionMove", "moved_at")
    assert isinstance(field, PersonalField)
    assert field.datum == "when the address of a client changed during a session"


@pytest.mark.claim("S-11")
def test_authentication_event_has_exactly_the_fields_of_the_policy() -> None:
    assert columns("relay_authenticationevent") == {
        "node",
        "boot",
        "number",
        "project_id",
        "occurred_at",
        "client_address",
        "client_port",
        "transport",
        "outcome",
    }


@pytest.mark.claim("S-11")
def test_usage_record_has_exactly_the_fields_of_the_policy() -> None:
    assert columns("relay_usagerecord") == {
        *KEYS,
        "sequence",
        "project_id",
        "session_started_at",
        "interval_started_at",
        "interval_ended_at",
        *COUNTERS,
        *(name.replace("_bytes", "_total_bytes") for name in COUNTERS),
        "is_last",
        "is_rolled_up",
    }


@pytest.mark.claim("S-11")
def test_steps_of_usage_are_named_with_their_length() -> None:
    for name in columns("relay_usagerecord"):
        field = registry.field("relay.UsageRecord", name.removesuffix("_id"))
        if name.startswith("interval_") or name.endswith("_bytes"):
            assert isinstance(field, PersonalField)
            assert field.datum == "when and how much was relayed, in steps of five seconds"
    assert settings.TURN_FLUSH_INTERVAL_SECONDS == 5


@pytest.mark.parametrize(
    "table", ["relay_usagerecord", "relay_usagehour", "relay_quarantinedrecord"]
)
@pytest.mark.claim("S-77")
def test_usage_holds_no_address_and_no_name_of_a_user(table: str) -> None:
    with connection.cursor() as cursor:
        description = connection.introspection.get_table_description(cursor, table)
    assert not [column.name for column in description if "address" in column.name]
    assert not [column.name for column in description if "user" in column.name]


@pytest.mark.parametrize("model", [*LOGS, UsageHour])
def test_tables_have_the_columns_that_the_models_say(model: type) -> None:
    fields = model._meta.concrete_fields  # type: ignore[attr-defined]
    assert columns(model._meta.db_table) == {  # type: ignore[attr-defined]
        field.column for field in fields if field.column
    }


@pytest.mark.parametrize("model", LOGS)
def test_connection_logs_are_partitioned_by_a_time_in_their_key(model: type) -> None:
    meta = model._meta  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_partkeydef(%s::regclass)", [meta.db_table])
        [(key,)] = cursor.fetchall()
    assert key == f"RANGE ({meta.pk.field_names[-1]})"


def test_no_partition_locks_the_table_of_projects() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text FROM pg_constraint"
            " WHERE contype = 'f' AND confrelid = 'accounts_project'::regclass"
        )
        referring = {table for (table,) in cursor.fetchall()}
    assert referring.isdisjoint(
        {"relay_session", "relay_sessionmove", "relay_authenticationevent", "relay_usagerecord"}
    )
