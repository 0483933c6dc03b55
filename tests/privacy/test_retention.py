"""The retention engine: boundaries, vetoes, records, and the command."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO

import psycopg2
import pytest
from celery.schedules import crontab
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from privacy.management.commands import purge as purge_command
from privacy.models import PurgeRecord
from privacy.registry import Category, Purpose, Registry
from privacy.retention import engine
from privacy.retention.classes import ACCOUNT, CONNECTION_LOGS, SIGN_IN
from privacy.retention.engine import Holder, Holders, Outcome, Part
from privacy.retention.holders import partition_holder, row_holder
from privacy.retention.partitions import PartitionBusyError, partition_create
from tests.privacy.conftest import log_add, log_days

# The last moment of the 30th day after 1 January, and the first one of 31 January.
DAY_30_BEGINS = datetime(2026, 1, 31, tzinfo=UTC)
JUST_BEFORE = DAY_30_BEGINS - timedelta(microseconds=1)


@pytest.fixture
def log_holders(logs_table: str) -> Holders:
    """A holder of connection logs of the first two days of 2026, one row each."""
    for day in (1, 2):
        partition_create(table=logs_table, day=date(2026, 1, day))
        log_add(logs_table, f"2026-01-0{day} 00:00+00")
    holders = Holders()
    holders.register(
        partition_holder("tests.logs", CONNECTION_LOGS, table=logs_table, holds=["tests.Log"])
    )
    return holders


@pytest.fixture
def command_holders(log_holders: Holders, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holders]:
    """The command purges the test's holders."""
    monkeypatch.setattr(purge_command, "holders", log_holders)
    yield log_holders


def run_purge(*arguments: str) -> str:
    output = StringIO()
    call_command("purge", *arguments, stdout=output)
    return output.getvalue()


@pytest.mark.claim("S-34", "S-76")
def test_connection_logs_stay_until_the_last_moment_before_day_30(
    log_holders: Holders, logs_table: str
) -> None:
    assert log_holders.purge(now=JUST_BEFORE) == []
    assert log_days(logs_table) == ["2026-01-01", "2026-01-02"]


@pytest.mark.claim("S-34", "S-76")
def test_connection_logs_of_a_day_go_when_day_30_begins(
    log_holders: Holders, logs_table: str
) -> None:
    [outcome] = log_holders.purge(now=DAY_30_BEGINS)
    assert outcome.part.name == f"{logs_table}_20260101"
    assert log_days(logs_table) == ["2026-01-02"]


@pytest.mark.claim("S-34")
def test_nothing_is_older_than_30_days_after_a_purge(log_holders: Holders, logs_table: str) -> None:
    for hours in range(0, 72, 7):
        now = DAY_30_BEGINS + timedelta(hours=hours)
        log_holders.purge(now=now)
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT count(*) FROM {logs_table} WHERE occurred_at < %s",
                [now - timedelta(days=30)],
            )
            assert cursor.fetchone() == (0,)


def test_plan_says_what_purge_does_and_changes_nothing(
    log_holders: Holders, logs_table: str
) -> None:
    now = DAY_30_BEGINS + timedelta(days=1)
    plan = log_holders.plan(now=now)
    assert [outcome.part.rows for outcome in plan] == [1, 1]
    assert log_days(logs_table) == ["2026-01-01", "2026-01-02"]
    assert log_holders.purge(now=now) == plan


def test_second_purge_deletes_nothing(log_holders: Holders) -> None:
    assert log_holders.purge(now=DAY_30_BEGINS)
    assert log_holders.purge(now=DAY_30_BEGINS) == []
    assert PurgeRecord.objects.count() == 1


def test_purge_records_what_went(log_holders: Holders, logs_table: str) -> None:
    log_holders.purge(now=DAY_30_BEGINS)
    record = PurgeRecord.objects.get()
    assert (record.holder, record.retention_class) == ("tests.logs", "connection_logs")
    assert (record.part, record.rows) == (f"{logs_table}_20260101", 1)
    assert record.purged_at == DAY_30_BEGINS


def test_veto_keeps_a_part_and_gives_its_reason(log_holders: Holders, logs_table: str) -> None:
    log_holders.veto(
        "tests.logs", lambda part: "not billed yet" if part.name.endswith("0101") else None
    )
    now = DAY_30_BEGINS + timedelta(days=1)
    kept, gone = log_holders.purge(now=now)
    assert (kept.part.kept_because, gone.part.kept_because) == ("not billed yet", "")
    assert log_days(logs_table) == ["2026-01-01"]
    assert [outcome.part.kept_because for outcome in log_holders.plan(now=now)] == [
        "not billed yet"
    ]


def test_nobody_writes_to_a_part_between_the_veto_and_its_end(
    committed_logs_table: str, other_connection: psycopg2.extensions.connection
) -> None:
    partition_create(table=committed_logs_table, day=date(2026, 1, 1))
    refused = []

    def write(part: Part) -> None:
        """What an ingest does that comes as soon as the veto has found nothing."""
        with other_connection, other_connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '100ms'")
            try:
                cursor.execute(
                    f"INSERT INTO {committed_logs_table} (occurred_at) VALUES ('2026-01-01 12:00Z')"
                )
            except psycopg2.errors.LockNotAvailable:
                refused.append(part.name)
                other_connection.rollback()

    holders = Holders()
    holders.register(
        partition_holder("tests.logs", CONNECTION_LOGS, table=committed_logs_table, holds=[])
    )
    holders.veto("tests.logs", write)
    [outcome] = holders.purge(now=DAY_30_BEGINS)
    assert refused == [outcome.part.name]
    assert outcome.part.rows == 0


@pytest.mark.django_db
def test_part_that_stays_busy_is_kept_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_PAUSE_SECONDS", 0)
    attempts = []

    def purge(part: Part) -> int:
        attempts.append(part)
        raise PartitionBusyError

    holders = Holders()
    part = Part("one", DAY_30_BEGINS, 3)
    holders.register(Holder("tests.busy", CONNECTION_LOGS, (), lambda now: [part], purge))
    [outcome] = holders.purge(now=DAY_30_BEGINS)
    assert outcome.part.kept_because == "in use; the next run tries again"
    assert len(attempts) == engine.BUSY_ATTEMPTS
    assert not PurgeRecord.objects.exists()


def test_holder_that_fails_does_not_stop_the_others(log_holders: Holders, logs_table: str) -> None:
    def plan(now: datetime) -> list[Part]:
        raise RuntimeError("out of order")

    log_holders.register(Holder("tests.first", CONNECTION_LOGS, (), plan, lambda part: 0))
    with pytest.raises(ExceptionGroup) as raised:
        log_holders.purge(now=DAY_30_BEGINS)
    assert [str(error) for error in raised.value.exceptions] == ["out of order"]
    assert log_days(logs_table) == ["2026-01-02"]


def sessions_expired(now: datetime) -> QuerySet[Session]:
    return Session.objects.filter(expire_date__lt=now)


@pytest.mark.django_db
@pytest.mark.claim("S-75")
def test_rows_past_their_time_go_and_others_stay() -> None:
    for key, days in (("old", -1), ("new", 1)):
        Session.objects.create(
            session_key=key, session_data="", expire_date=DAY_30_BEGINS + timedelta(days=days)
        )
    holders = Holders()
    holders.register(
        row_holder("tests.sessions", SIGN_IN, due=sessions_expired, holds=["sessions.Session"])
    )
    assert holders.purge(now=DAY_30_BEGINS) == [
        Outcome("tests.sessions", "sign_in", Part("due by 2026-01-31T00:00Z", DAY_30_BEGINS, 1))
    ]
    assert list(Session.objects.values_list("session_key", flat=True)) == ["new"]
    assert holders.purge(now=DAY_30_BEGINS) == []


def test_personal_data_with_a_period_and_no_holder_is_found() -> None:
    registry = Registry()
    registry.register(
        "sessions.Session",
        category=Category.ACCOUNT,
        purposes=(Purpose.PROVIDE,),
        retention=SIGN_IN,
        personal={"session_key": "cookies"},
    )
    [problem] = Holders().problems(registry)
    assert problem.startswith("sessions.Session holds sign_in data, but no retention holder")


def test_veto_about_an_unknown_holder_is_found() -> None:
    holders = Holders()
    holders.veto("tests.nobody", lambda part: None)
    assert holders.problems(Registry()) == [
        "a veto names the holder tests.nobody, which nobody registered"
    ]


def test_holder_of_a_class_without_a_period_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="does not end by the calendar"):
        Holders().register(Holder("tests.x", ACCOUNT, (), lambda now: [], lambda part: 0))


def test_command_is_a_dry_run_unless_told_to_execute(
    command_holders: Holders, logs_table: str
) -> None:
    text = run_purge("--as-of", "2026-01-31")
    assert f"tests.logs: {logs_table}_20260101, 1 rows, connection_logs: due" in text
    assert text.endswith("due: 1 parts, 1 rows; kept: 0\n")
    assert log_days(logs_table) == ["2026-01-01", "2026-01-02"]


def test_command_deletes_what_is_due_now(command_holders: Holders, logs_table: str) -> None:
    text = run_purge("--execute")  # 2026-01-01 lies more than 30 days back
    assert text.endswith("deleted: 2 parts, 2 rows; kept: 0\n")
    assert log_days(logs_table) == []


def test_command_never_deletes_as_of_another_day(command_holders: Holders, logs_table: str) -> None:
    with pytest.raises(CommandError, match="preview"):
        run_purge("--execute", "--as-of", "2036-01-31")
    assert log_days(logs_table) == ["2026-01-01", "2026-01-02"]


def test_beat_runs_the_purge_at_least_daily() -> None:
    [schedule] = [
        entry["schedule"]
        for entry in settings.CELERY_BEAT_SCHEDULE.values()
        if entry["task"] == "privacy.tasks.purge"
    ]
    assert isinstance(schedule, crontab)
    assert schedule.remaining_estimate(timezone.now()) <= timedelta(days=1)
