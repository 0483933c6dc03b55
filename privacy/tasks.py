"""What the worker does for privacy."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from privacy.retention.engine import holders


@shared_task
def purge() -> None:
    """Delete what is past its retention period."""
    holders.purge(now=timezone.now())
