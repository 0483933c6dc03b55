"""What the worker does for the relay's books."""

from __future__ import annotations

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from relay.services.partitions import partitions_create_ahead
from relay.services.shipping import journal_ship
from relay.services.usage import usage_roll_up


@shared_task
def ship() -> None:
    """Ship the relay's journal into the database, and add new usage to its hours."""
    journal_ship(directory=settings.TURN_JOURNAL_DIRECTORY, now=timezone.now())
    usage_roll_up()


@shared_task
def partitions_ahead() -> None:
    """Make the connection logs' partitions of the coming days."""
    partitions_create_ahead(now=timezone.now())
