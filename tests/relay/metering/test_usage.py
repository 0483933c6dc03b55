"""The roll-up: each record in its hour, once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import Sum

from accounts.models import Project
from relay.models import UsageHour, UsageRecord
from relay.services.ingest import records_ingest
from relay.services.usage import usage_hours_take, usage_roll_up
from tests.relay.metering.examples import NOW, call

pytestmark = pytest.mark.django_db

HOUR = NOW.replace(minute=0)


def ingest(project: Project, **options: int | float) -> None:
    lines = call(project.public_id, **options).lines  # type: ignore[arg-type]
    records_ingest(lines=lines, now=NOW, source="node-1-b00t")


def test_call_across_the_hour_is_split_at_the_boundary(project: Project) -> None:
    ingest(project, starts_at=HOUR.timestamp() - 10, intervals=4, sent=996)
    assert usage_roll_up() == 5
    rows = UsageHour.objects.order_by("hour").values_list("hour", "client_sent_bytes")
    assert list(rows) == [(HOUR - timedelta(hours=1), 2000), (HOUR, 2000)]


def test_roll_up_counts_each_record_once(project: Project) -> None:
    ingest(project)
    assert usage_roll_up() == 4
    assert usage_roll_up() == 0
    ingest(project, allocation=2)
    assert usage_roll_up() == 4
    assert (
        UsageHour.objects.aggregate(sent=Sum("client_sent_bytes"))
        == UsageRecord.objects.aggregate(sent=Sum("client_sent_bytes"))
        == {"sent": 2 * 3 * 1004}
    )


def test_hours_of_projects_stay_apart(project: Project, other_project: Project) -> None:
    ingest(project, allocation=1, sent=10)
    ingest(other_project, allocation=2, sent=20)
    usage_roll_up()
    assert dict(UsageHour.objects.values_list("project", "client_sent_bytes")) == {
        project.pk: 3 * 14,
        other_project.pk: 3 * 24,
    }


def test_new_usage_makes_a_rated_hour_unrated(project: Project) -> None:
    ingest(project, starts_at=HOUR.timestamp())
    usage_roll_up()
    hours = {
        "organisation_id": project.organisation_id,
        "starts_at": HOUR,
        "ends_at": HOUR + timedelta(hours=1),
    }
    [hour] = usage_hours_take(**hours)  # type: ignore[arg-type]
    assert hour.is_rated
    assert UsageHour.objects.get().is_rated
    ingest(project, starts_at=HOUR.timestamp(), allocation=2)
    usage_roll_up()
    assert not UsageHour.objects.get().is_rated


def roll_up_impatiently() -> int:
    """In a connection of its own, which waits for no lock."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")
        return usage_roll_up()
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_no_hour_is_added_while_an_invoice_is_drafted(project: Project) -> None:
    ingest(project, starts_at=HOUR.timestamp())
    with ThreadPoolExecutor() as others:
        with transaction.atomic():
            taken = usage_hours_take(
                organisation_id=project.organisation_id,
                starts_at=HOUR,
                ends_at=HOUR + timedelta(hours=1),
            )
            with pytest.raises(OperationalError, match="lock timeout"):
                others.submit(roll_up_impatiently).result()
        assert taken == []
        assert others.submit(roll_up_impatiently).result() == 4
    assert not UsageHour.objects.get().is_rated


def test_hours_are_taken_from_a_half_open_span_of_one_organisation(
    project: Project, other_project: Project
) -> None:
    for allocation, owner in enumerate((project, other_project)):
        for offset in (-1, 0, 1, 2):
            starts_at = HOUR.timestamp() + 3600 * (offset - 3)
            ingest(owner, allocation=10 * allocation + offset, starts_at=starts_at)
    usage_roll_up()
    taken = usage_hours_take(
        organisation_id=project.organisation_id,
        starts_at=HOUR - timedelta(hours=3),
        ends_at=HOUR - timedelta(hours=1),
    )
    assert [hour.hour for hour in taken] == [HOUR - timedelta(hours=3), HOUR - timedelta(hours=2)]
    assert {hour.project for hour in taken} == {project}
    assert UsageHour.objects.filter(is_rated=True).count() == 2
