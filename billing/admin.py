"""The operator's view of billing: invoices to read, prices to add."""

from __future__ import annotations

from datetime import datetime

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from accounts.read_only_admin import ReadOnlyAdmin, ReadOnlyMixin
from billing.models import Invoice, InvoiceLine, PriceBookVersion
from billing.services import PriceBookError, price_book_start_check


class PriceBookVersionForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new version, which must begin in the future."""

    def clean_valid_from(self) -> datetime:
        """The start, if a version can begin then."""
        valid_from: datetime = self.cleaned_data["valid_from"]
        try:
            price_book_start_check(valid_from=valid_from, now=timezone.now())
        except PriceBookError as error:
            raise forms.ValidationError(str(error)) from error
        return valid_from


@admin.register(PriceBookVersion)
class PriceBookVersionAdmin(ReadOnlyAdmin):
    form = PriceBookVersionForm
    list_display = ("valid_from", "price_per_gb", "free_bytes_per_month", "counted_bytes")

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Those to whom the permission was given: this is how prices change."""
        return admin.ModelAdmin.has_add_permission(self, request)


class InvoiceLineInline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    model = InvoiceLine


@admin.register(Invoice)
class InvoiceAdmin(ReadOnlyAdmin):
    list_display = ("month", "organisation", "status", "metered_bytes", "amount_cents")
    list_filter = ("status",)
    list_select_related = ("organisation",)
    date_hierarchy = "month"
    search_fields = ("organisation__name", "organisation__public_id")
    inlines = (InvoiceLineInline,)
