"""Looks into a running service's database, with its own settings and another clock.

    python -m tests.e2e.inside report|purge PROJECT [NEEDLE ...]

PROJECT is a project's public id: other tests may have used the same service. Prints one JSON
object. It runs in a process of its own, because the tests' process has the
settings of the test database.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta

import django
from django.db import connection
from django.utils import timezone

django.setup()

from billing.models import Invoice, InvoiceLine  # noqa: E402 - models need the line above
from privacy.retention.engine import holders  # noqa: E402
from relay.models import (  # noqa: E402
    AuthenticationEvent,
    PeerFlow,
    Session,
    SessionMove,
    UsageHour,
    UsageRecord,
)
from tests.marker_search import find_marker  # noqa: E402

DAYS = 31
LOGS = (Session, PeerFlow, SessionMove, AuthenticationEvent, UsageRecord)


def report(project: str, needles: list[str]) -> dict[str, object]:
    """What the books say of a project; how many rows of logs there are in all; and in which
    tables the needles are found.
    """
    invoices = Invoice.objects.filter(lines__project__public_id=project).distinct()
    lines = InvoiceLine.objects.filter(project__public_id=project)
    return {
        "rows": {model.__name__: model._default_manager.count() for model in LOGS},
        "sessions": list(
            Session.objects.filter(project__public_id=project).values(
                "client_received_bytes", "client_sent_bytes", "peer_received_bytes"
            )
        ),
        "hours_client_sent_bytes": sum(
            UsageHour.objects.filter(project__public_id=project).values_list(
                "client_sent_bytes", flat=True
            )
        ),
        "invoices": plain(list(invoices.order_by("pk").values())),
        "lines": plain(list(lines.order_by("pk").values())),
        "found": find_marker(connection, [], needles) if needles else [],
    }


def plain(value: object) -> object:
    """The value as JSON has it; times and amounts as text."""
    return json.loads(json.dumps(value, default=str))


def purge() -> None:
    """Delete what will be due in 31 days."""
    holders.purge(now=timezone.now() + timedelta(days=DAYS))


if __name__ == "__main__":
    action, project_id, *words = sys.argv[1:]
    if action == "purge":
        purge()
    json.dump(report(project_id, words), sys.stdout)
