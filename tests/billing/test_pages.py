"""The overview and the invoices: who sees which figures."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from accounts.models import Membership, Organisation, Project, Role, User
from billing.services import invoices_draft
from relay.models import UsageHour
from relay.services.ingest import records_ingest
from relay.services.usage import usage_roll_up
from tests.people import person
from tests.relay.metering.examples import call

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("price")]

NOW = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
PAYERS = [Role.OWNER, Role.ADMIN, Role.BILLING]


def get(user: User, path: str, status: int = 200) -> str:
    client = Client()
    client.force_login(user)
    answer = client.get(path)
    assert answer.status_code == status
    return answer.content.decode()


def used(project: Project, sent: int, hour: datetime) -> None:
    UsageHour.objects.create(
        project=project,
        hour=hour,
        client_received_bytes=sent,
        client_sent_bytes=sent,
        peer_received_bytes=sent,
        peer_sent_bytes=sent,
    )


def member(organisation: Organisation, role: str) -> User:
    user = person("Erin")
    Membership.objects.create(organisation=organisation, user=user, role=role)
    return user


@time_machine.travel(NOW, tick=False)
def test_call_is_seen_in_the_overview_and_on_the_invoice_to_the_byte(
    alice: User, project: Project
) -> None:
    now = timezone.now()
    records = call(project.public_id, starts_at=now.timestamp() - 60, sent=1_000_000, end=False)
    records_ingest(lines=records.lines, now=now, source="node-1-x")
    usage_roll_up()
    invoices_draft(now=now)
    overview = get(alice, "/dashboard/")
    assert "<dd>1 <small>allocations" in overview
    assert 'value="3000012"' in overview
    month = f"{now:%Y-%m}"
    assert f"/billing/{month}/" in overview
    invoice = get(alice, f"/billing/{month}/")
    assert "3,000,012" in invoice
    assert "bytes sent to the TURN client" in invoice


@time_machine.travel(NOW, tick=False)
def test_today_and_this_month_are_those_of_berlin(alice: User, project: Project) -> None:
    used(project, 1, datetime(2026, 2, 28, 22, tzinfo=UTC))  # still February
    used(project, 20, datetime(2026, 2, 28, 23, tzinfo=UTC))  # March there
    used(project, 300, datetime(2026, 3, 19, 23, tzinfo=UTC))  # today there
    overview = get(alice, "/dashboard/")
    assert "<dd>300 bytes" in overview
    assert "<dd>320 bytes" in overview


@time_machine.travel(NOW, tick=False)
@pytest.mark.parametrize("role", Role.values)
def test_money_is_for_those_who_pay(
    organisation: Organisation, project: Project, role: str
) -> None:
    used(project, 40 * 10**9, datetime(2026, 3, 10, tzinfo=UTC))
    invoices_draft(now=NOW)
    user = member(organisation, role)
    pays = role in PAYERS
    overview = get(user, "/dashboard/")
    assert "40.0 GB" in overview
    assert ("2.00 EUR" in overview) == pays
    assert ("2.00 EUR" in get(user, "/billing/")) == pays
    get(user, "/billing/2026-03/", 200 if pays else 404)


def test_strangers_and_visitors_see_nothing(charlie: User, project: Project) -> None:
    used(project, 40 * 10**9, datetime(2026, 3, 10, tzinfo=UTC))
    invoices_draft(now=NOW)
    for path in ("/dashboard/", "/billing/", "/billing/2026-03/"):
        assert Client().get(path).status_code == 302
    assert project.name not in get(charlie, "/dashboard/")
    assert "2.00 EUR" not in get(charlie, "/billing/")
    get(charlie, "/billing/2026-03/", 404)


@pytest.mark.parametrize("text", ["2026-13", "x", "2026-04", "9999-12"])
def test_month_without_invoice_is_not_found(alice: User, text: str) -> None:
    get(alice, f"/billing/{text}/", 404)


def test_new_customer_is_told_what_to_do(alice: User, organisation: Organisation) -> None:
    assert "Make the first one" in get(alice, "/dashboard/")
    assert "No invoice yet" in get(alice, "/billing/")
