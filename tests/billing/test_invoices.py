"""Draft invoices: one per organisation and month, and the same however often they are drafted."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from accounts.models import Organisation, Project
from accounts.services import organisation_create, project_create
from billing import services
from billing.models import Invoice, InvoiceLine, PriceBookVersion
from billing.rating import CountedBytes, PriceMissingError
from billing.services import PriceBookError, invoices_draft, price_book_version_create
from relay.models import UsageHour
from tests.people import person

NOW = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
HOUR = datetime(2026, 3, 10, 9, tzinfo=UTC)
GB = 10**9

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("price")]


def used(project: Project, sent: int, hour: datetime = HOUR) -> None:
    UsageHour.objects.create(
        project=project,
        hour=hour,
        client_received_bytes=1,
        client_sent_bytes=sent,
        peer_received_bytes=sent,
        peer_sent_bytes=1,
    )


def used_more(project: Project, sent: int, hour: datetime = HOUR) -> None:
    """As the roll-up does it."""
    row = UsageHour.objects.get(project=project, hour=hour)
    row.client_sent_bytes += sent
    row.is_rated = False
    row.save()


def stored() -> tuple[list[Any], list[Any]]:
    return list(Invoice.objects.values()), list(InvoiceLine.objects.values())


def test_usage_becomes_a_line_that_says_which_bytes_count(
    project: Project, organisation: Organisation
) -> None:
    used(project, 12_345_678_901)
    assert invoices_draft(now=NOW) == 1
    invoice = Invoice.objects.get()
    assert (invoice.organisation, invoice.status) == (organisation, "draft")
    assert f"{invoice.month:%Y-%m}" == "2026-03"
    assert (invoice.metered_bytes, invoice.amount_cents) == (12_345_678_901, 62)
    line = invoice.lines.get()
    assert line.project == project
    assert line.description == "Production: relayed data, bytes sent to the TURN client"
    assert (line.metered_bytes, line.free_bytes, line.amount_cents) == (12_345_678_901, 0, 62)
    assert line.price_per_gb == Decimal("0.05")


def test_few_bytes_are_on_the_invoice_to_the_byte(project: Project) -> None:
    used(project, 4321)
    invoices_draft(now=NOW)
    assert InvoiceLine.objects.get().metered_bytes == 4321
    assert Invoice.objects.get().amount_cents == 0


def test_second_run_changes_nothing(project: Project) -> None:
    used(project, GB)
    invoices_draft(now=NOW)
    before = stored()
    assert invoices_draft(now=NOW + timedelta(days=1)) == 0
    UsageHour.objects.update(is_rated=False)  # as if it had died before it could say so
    assert invoices_draft(now=NOW + timedelta(days=1)) == 1
    assert stored() == before


def test_more_usage_changes_the_line_and_not_its_number(project: Project) -> None:
    used(project, GB)
    invoices_draft(now=NOW)
    line = InvoiceLine.objects.get()
    used_more(project, 3 * GB)
    invoices_draft(now=NOW + timedelta(hours=1))
    line.refresh_from_db()
    assert (line.metered_bytes, line.amount_cents) == (4 * GB, 20)
    invoice = Invoice.objects.get()
    assert (invoice.metered_bytes, invoice.amount_cents) == (4 * GB, 20)
    assert invoice.changed_at == NOW + timedelta(hours=1)


def test_month_without_usage_has_no_invoice(project: Project) -> None:
    used(project, 0)
    invoices_draft(now=NOW)
    assert not Invoice.objects.exists()
    assert invoices_draft(now=NOW) == 0


def test_months_end_at_midnight_in_berlin(project: Project) -> None:
    last_of_march = datetime(2026, 3, 31, 21, tzinfo=UTC)
    used(project, 1, last_of_march)
    used(project, 2, last_of_march + timedelta(hours=1))
    invoices_draft(now=NOW)
    assert dict(Invoice.objects.values_list("month__month", "metered_bytes")) == {3: 1, 4: 2}


def test_late_usage_goes_to_the_month_in_which_it_was(project: Project) -> None:
    used(project, GB)
    invoices_draft(now=NOW)
    used(project, GB, HOUR - timedelta(days=40))
    invoices_draft(now=NOW)
    assert dict(Invoice.objects.values_list("month__month", "metered_bytes")) == {1: GB, 3: GB}


def test_projects_have_a_line_each_and_organisations_an_invoice(
    project: Project, second_project: Project
) -> None:
    other = project_create(
        organisation=organisation_create(owner=person("Dora"), name="Dora's"), name="Other"
    )
    for owner, sent in ((project, 1), (second_project, 2), (other, 4)):
        used(owner, sent)
    assert invoices_draft(now=NOW) == 2
    assert sorted(Invoice.objects.values_list("metered_bytes", flat=True)) == [3, 4]
    assert [line.metered_bytes for line in InvoiceLine.objects.order_by("project_id")] == [1, 2, 4]


def test_price_that_changes_within_the_month_gives_two_lines(project: Project) -> None:
    price_book_version_create(
        valid_from=HOUR + timedelta(hours=1),
        price_per_gb=Decimal("0.10"),
        free_bytes_per_month=0,
        counted_bytes=CountedBytes.CLIENT_SENT,
        now=HOUR - timedelta(days=1),
    )
    used(project, GB, HOUR)
    used(project, GB, HOUR + timedelta(hours=1))
    invoices_draft(now=NOW)
    assert [line.amount_cents for line in InvoiceLine.objects.all()] == [5, 10]
    assert Invoice.objects.get().amount_cents == 15


def test_crash_between_the_steps_leaves_nothing_half_done(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(project, GB)

    def die(*_: object) -> bool:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(services, "_lines_write", die)
        with pytest.raises(RuntimeError):
            invoices_draft(now=NOW)
    assert not Invoice.objects.exists()
    assert not UsageHour.objects.get().is_rated
    invoices_draft(now=NOW)
    assert Invoice.objects.get().amount_cents == 5


def test_invoice_that_cannot_be_drafted_stops_no_other(project: Project) -> None:
    used(project, GB)
    used(project, GB, datetime(1999, 12, 1, tzinfo=UTC))
    with pytest.raises(ExceptionGroup) as caught:
        invoices_draft(now=NOW)
    assert caught.group_contains(PriceMissingError)
    assert Invoice.objects.get().month.year == 2026


def test_second_invoice_for_the_same_month_is_refused(project: Project) -> None:
    used(project, GB)
    invoices_draft(now=NOW)
    invoice = Invoice.objects.get()
    invoice.pk = None
    with pytest.raises(IntegrityError, match="one_invoice"), transaction.atomic():
        invoice.save()


@pytest.mark.parametrize(
    ("valid_from", "message"),
    [
        (NOW - timedelta(hours=1), "in the future"),
        (NOW, "in the future"),
        (NOW + timedelta(minutes=30), "full hour"),
        (NOW + timedelta(hours=24), "another version"),
    ],
)
def test_price_that_would_change_the_past_is_refused(valid_from: datetime, message: str) -> None:
    def create(valid_from: datetime) -> None:
        price_book_version_create(
            valid_from=valid_from,
            price_per_gb=Decimal("0.10"),
            free_bytes_per_month=0,
            counted_bytes=CountedBytes.CLIENT_SENT,
            now=NOW,
        )

    create(NOW + timedelta(hours=24))
    with pytest.raises(PriceBookError, match=message):
        create(valid_from)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE billing_pricebookversion SET price_per_gb = 0",
        "DELETE FROM billing_pricebookversion",
    ],
)
def test_price_book_can_only_be_added_to(sql: str) -> None:
    with (
        pytest.raises(IntegrityError, match="never changed"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
    assert PriceBookVersion.objects.get().price_per_gb == Decimal("0.05")


@pytest.mark.django_db(transaction=True)
def test_runs_at_the_same_time_make_one_invoice(project: Project, second_project: Project) -> None:
    hours = [HOUR + timedelta(hours=hour) for hour in range(20)]
    for owner in (project, second_project):
        for hour in hours:
            used(owner, GB, hour)
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def run() -> None:
        try:
            start.wait()
            invoices_draft(now=NOW)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Invoice.objects.get().amount_cents == 2 * 20 * 5
    assert InvoiceLine.objects.count() == 2
