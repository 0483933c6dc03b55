"""Invoices and their lines. For now each is a draft: it follows the usage of its month."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from accounts.models import Organisation, Project
from billing.models.price_book import PriceBookVersion
from billing.money import CURRENCY


class InvoiceStatus(models.TextChoices):
    DRAFT = "draft", "Draft"


class Invoice(models.Model):
    """What one organisation owes for one month (of the billing time zone).

    Invoices hold no address of anybody's connection, and stay when the connection logs go.
    """

    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="invoices")
    month = models.DateField(help_text="its first day")
    status = models.CharField(
        max_length=16, choices=InvoiceStatus.choices, default=InvoiceStatus.DRAFT
    )
    currency = models.CharField(max_length=3, default=CURRENCY, editable=False)
    metered_bytes = models.PositiveBigIntegerField()
    amount_cents = models.PositiveBigIntegerField()
    created_at = models.DateTimeField()
    changed_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-month", "organisation"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["organisation", "month"], name="one_invoice_per_organisation_and_month"
            ),
            models.CheckConstraint(condition=models.Q(month__day=1), name="month_is_its_first_day"),
        ]

    def __str__(self) -> str:
        return f"{self.organisation_id}, {self.month:%Y-%m}"


class InvoiceLine(models.Model):
    """What one project relayed at one price.

    `amount_cents` is for `metered_bytes` less `free_bytes`, rounded half up, once.
    """

    invoice = models.ForeignKey(Invoice, models.CASCADE, related_name="lines")
    project = models.ForeignKey(Project, models.PROTECT, related_name="+")
    price = models.ForeignKey(PriceBookVersion, models.PROTECT, related_name="+")
    description = models.CharField(max_length=300)
    metered_bytes = models.PositiveBigIntegerField()
    free_bytes = models.PositiveBigIntegerField()
    price_per_gb = models.DecimalField(max_digits=12, decimal_places=6)
    amount_cents = models.PositiveBigIntegerField()

    class Meta:
        ordering: ClassVar[list[str]] = ["project", "price__valid_from"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["invoice", "project", "price"], name="one_line_per_project_and_price"
            ),
            models.CheckConstraint(
                condition=models.Q(free_bytes__lte=models.F("metered_bytes")),
                name="free_bytes_are_metered",
            ),
        ]

    def __str__(self) -> str:
        return self.description
