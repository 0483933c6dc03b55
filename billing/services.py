"""What changes billing: draft invoices and the price book."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing.models import Invoice, InvoiceLine, PriceBookVersion
from billing.periods import Month
from billing.rating import (
    CountedBytes,
    HourOfUsage,
    Price,
    PriceMissingError,
    RatedLine,
    usage_rate,
)
from relay.models import UsageHour
from relay.selectors import usage_unrated
from relay.services.usage import usage_hours_take


class PriceBookError(ValueError):
    """A version that the price book can't take; the message says why."""


def invoices_draft(*, now: datetime) -> int:
    """Bring the draft invoices up to the usage that came in since the last time.

    Each organisation and month is a transaction of its own, in which its hours are marked as
    rated: dying in between leaves the rest to the next run, and running twice, or two at a time,
    changes nothing more.

    Returns:
        How many invoices were looked at.

    Raises:
        ExceptionGroup: invoices that could not be drafted; the others were.
    """
    stale = {(organisation, Month.of(hour)) for organisation, hour in usage_unrated()}
    errors = []
    for organisation, month in sorted(stale):
        try:
            invoice_draft(organisation_id=organisation, month=month, now=now)
        except PriceMissingError as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("invoices could not be drafted", errors)
    return len(stale)


@transaction.atomic
def invoice_draft(*, organisation_id: int, month: Month, now: datetime) -> Invoice | None:
    """Draft one organisation's invoice for one month from all usage that is known of it.

    Returns:
        The invoice; None where the month has no usage, for which there is no invoice.

    Raises:
        PriceMissingError: the price book begins later.
    """
    hours = usage_hours_take(  # from here on we are alone with these hours
        organisation_id=organisation_id, starts_at=month.starts_at, ends_at=month.ends_at
    )
    rated = usage_rate(
        hours=[_hour(hour) for hour in hours],
        prices=[_price(version) for version in PriceBookVersion.objects.all()],
        starts_at=month.starts_at,
    )
    if not rated:
        return None
    names = {hour.project_id: hour.project.name for hour in hours}
    metered_bytes = sum(line.metered_bytes for line in rated)
    amount_cents = sum(line.amount_cents for line in rated)
    invoice, is_new = Invoice.objects.get_or_create(
        organisation_id=organisation_id,
        month=month.first_day,
        defaults={
            "metered_bytes": metered_bytes,
            "amount_cents": amount_cents,
            "created_at": now,
            "changed_at": now,
        },
    )
    lines_changed = _lines_write(invoice, rated, names)
    if lines_changed and not is_new:
        invoice.metered_bytes = metered_bytes
        invoice.amount_cents = amount_cents
        invoice.changed_at = now
        invoice.save(update_fields=["metered_bytes", "amount_cents", "changed_at"])
    return invoice


def price_book_version_create(
    *,
    valid_from: datetime,
    price_per_gb: Decimal,
    free_bytes_per_month: int,
    counted_bytes: CountedBytes,
    now: datetime,
) -> PriceBookVersion:
    """Add a version to the price book. It holds for later usage only: no past hour changes.

    Raises:
        PriceBookError: it would begin in the past, within an hour, or when another does.
    """
    price_book_start_check(valid_from=valid_from, now=now)
    return PriceBookVersion.objects.create(
        valid_from=valid_from,
        price_per_gb=price_per_gb,
        free_bytes_per_month=free_bytes_per_month,
        counted_bytes=counted_bytes,
    )


def price_book_start_check(*, valid_from: datetime, now: datetime) -> None:
    """Refuse a time at which no new version can begin.

    Raises:
        PriceBookError: it is in the past, within an hour, or another version's.
    """
    if valid_from.minute or valid_from.second or valid_from.microsecond:
        raise PriceBookError("a price begins on a full hour, as usage is counted by the hour")
    if valid_from <= now:
        raise PriceBookError("a price begins in the future: what was used keeps its price")
    if PriceBookVersion.objects.filter(valid_from=valid_from).exists():
        raise PriceBookError("another version begins at that time")


def _lines_write(invoice: Invoice, rated: Iterable[RatedLine], names: dict[int, str]) -> bool:
    """Make the invoice's lines those that were rated; whether any was different."""
    known = {(line.project_id, line.price_id): line for line in invoice.lines.all()}
    changed = False
    for line in rated:
        values = {
            "description": f"{names[line.project_id]}: relayed data, {line.price.counted.words}",
            "metered_bytes": line.metered_bytes,
            "free_bytes": line.free_bytes,
            "price_per_gb": line.price.price_per_gb,
            "amount_cents": line.amount_cents,
        }
        row = known.pop((line.project_id, line.price.id), None)
        if row is None:
            InvoiceLine.objects.create(
                invoice=invoice, project_id=line.project_id, price_id=line.price.id, **values
            )
            changed = True
        elif any(getattr(row, name) != value for name, value in values.items()):
            InvoiceLine.objects.filter(pk=row.pk).update(**values)
            changed = True
    for row in known.values():
        row.delete()
        changed = True
    return changed


def _hour(hour: UsageHour) -> HourOfUsage:
    return HourOfUsage(
        project_id=hour.project_id,
        hour=hour.hour,
        client_sent_bytes=hour.client_sent_bytes,
        client_received_bytes=hour.client_received_bytes,
    )


def _price(version: PriceBookVersion) -> Price:
    return Price(
        id=version.pk,
        valid_from=version.valid_from,
        price_per_gb=version.price_per_gb,
        free_bytes_per_month=version.free_bytes_per_month,
        counted=CountedBytes(version.counted_bytes),
    )
