"""The connection logs of a real call, from ingest until nobody can find its addresses any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from accounts.models import Project
from billing.models import Invoice, InvoiceLine, PriceBookVersion
from billing.services import invoices_draft
from privacy.models import PurgeRecord
from privacy.retention.engine import holders
from relay.services.ingest import records_ingest
from relay.services.usage import usage_roll_up
from tests.marker_search import find_marker
from tests.relay.metering.examples import NOW, call

pytestmark = pytest.mark.django_db

CLIENT, MOVED, PEER = "192.0.2.1", "203.0.113.9", "198.51.100.7"
LOG_TABLES = {
    "relay_session",
    "relay_peerflow",
    "relay_sessionmove",
    "relay_authenticationevent",
    "relay_usagerecord",
}
# The call is on 10 March 2026.
DAY_30_BEGINS = datetime(2026, 4, 9, tzinfo=UTC)


@pytest.fixture
def logged_call(project: Project) -> None:
    """A finished call whose records are in the database, not rolled up yet."""
    records = call(project.public_id, moves=[(MOVED, 6000)])
    records_ingest(lines=records.lines, now=NOW, source="node-1-boot1")
    assert all(find_marker(connection, [], [address]) for address in (CLIENT, MOVED, PEER))


@pytest.fixture
def price(db: None) -> None:
    PriceBookVersion.objects.get_or_create(
        valid_from=datetime(2000, 1, 1, tzinfo=UTC), defaults={"price_per_gb": "0.05"}
    )


def tables_purged() -> set[str]:
    return {part.rpartition("_")[0] for part in PurgeRecord.objects.values_list("part", flat=True)}


@pytest.mark.claim("S-34", "S-76")
def test_addresses_of_a_call_are_found_nowhere_once_day_30_begins(logged_call: None) -> None:
    usage_roll_up()
    holders.purge(now=DAY_30_BEGINS - timedelta(microseconds=1))
    assert tables_purged() == set()
    holders.purge(now=DAY_30_BEGINS)
    assert tables_purged() == LOG_TABLES
    assert find_marker(connection, [], [CLIENT, MOVED, PEER]) == []


@pytest.mark.claim("S-82")
def test_counts_that_are_not_billed_yet_stay_without_the_addresses(logged_call: None) -> None:
    outcomes = holders.purge(now=DAY_30_BEGINS)
    kept = {outcome.holder: outcome.part.kept_because for outcome in outcomes}
    assert kept["relay.usage_records"] == "holds usage that is not billed yet"
    assert tables_purged() == LOG_TABLES - {"relay_usagerecord"}
    assert find_marker(connection, [], [CLIENT, MOVED, PEER]) == []
    usage_roll_up()
    holders.purge(now=DAY_30_BEGINS)
    assert tables_purged() == LOG_TABLES


def test_invoice_is_the_same_after_its_logs_are_gone(logged_call: None, price: None) -> None:
    usage_roll_up()
    invoices_draft(now=NOW)
    before = (list(Invoice.objects.values()), list(InvoiceLine.objects.values()))
    assert before[1]
    holders.purge(now=DAY_30_BEGINS)
    invoices_draft(now=DAY_30_BEGINS)
    assert (list(Invoice.objects.values()), list(InvoiceLine.objects.values())) == before


def test_purge_records_say_nothing_about_a_person(logged_call: None, project: Project) -> None:
    usage_roll_up()
    holders.purge(now=DAY_30_BEGINS)
    said = str(list(PurgeRecord.objects.values()))
    assert [word for word in (CLIENT, MOVED, PEER, project.public_id) if word in said] == []
