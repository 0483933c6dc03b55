"""What the worker does for billing."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from billing.services import invoices_draft


@shared_task
def draft() -> None:
    """Bring the draft invoices up to the usage by the hour."""
    invoices_draft(now=timezone.now())
