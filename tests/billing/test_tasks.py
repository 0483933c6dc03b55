"""The schedule: its tasks exist, and together they bring a journal onto an invoice."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings as project_settings
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.models import Project
from billing.models import InvoiceLine
from mindmore.celery import app
from relay.metering.journal import Journal
from tests.relay.metering.examples import call


def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in project_settings.CELERY_BEAT_SCHEDULE.values()}
    assert scheduled <= set(app.tasks)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("price")
def test_tasks_bring_a_journal_onto_an_invoice(
    settings: Settings, tmp_path: Path, project: Project
) -> None:
    settings.TURN_JOURNAL_DIRECTORY = tmp_path
    journal = Journal(directory=tmp_path, node="node-1", boot="b1")
    for record in call(project.public_id, boot="b1", starts_at=timezone.now().timestamp() - 60):
        journal.append(record)
    journal.close()
    app.loader.import_default_modules()
    for _ in range(2):
        for name in ("relay.tasks.partitions_ahead", "relay.tasks.ship", "billing.tasks.draft"):
            app.tasks[name].apply(throw=True)
    assert InvoiceLine.objects.get().metered_bytes == 3 * 1004
    assert list(tmp_path.iterdir()) == []
