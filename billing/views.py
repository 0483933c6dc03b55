"""The overview, and the pages of invoices."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.permissions import Permission
from accounts.requests import PersonalRequest
from accounts.selectors import organisations_for
from billing.periods import Month
from billing.selectors import figures_for, invoices_for


@login_required
@never_cache
@require_safe
def dashboard(request: PersonalRequest) -> HttpResponse:
    """Today at a glance, for each of one's organisations."""
    now = timezone.now()
    context = {
        "figures": figures_for(user=request.user, now=now),
        "month": Month.of(now),
        "time_zone": settings.BILLING_TIME_ZONE,
    }
    return render(request, "billing/dashboard.html", context)


@login_required
@never_cache
@require_safe
def invoices(request: PersonalRequest) -> HttpResponse:
    """The invoices of one's organisations, newest first."""
    context = {
        "invoices": invoices_for(user=request.user),
        "may_see_any": organisations_for(
            user=request.user, permission=Permission.BILLING_READ
        ).exists(),
    }
    return render(request, "billing/invoices.html", context)


@login_required
@never_cache
@require_safe
def invoice_month(request: PersonalRequest, text: str) -> HttpResponse:
    """The invoices of one month, with their lines."""
    month = Month.parse(text)
    found = month and list(
        invoices_for(user=request.user, month=month).prefetch_related("lines__project")
    )
    if not found:
        raise Http404
    context = {"invoices": found, "month": month, "time_zone": settings.BILLING_TIME_ZONE}
    return render(request, "billing/invoice_month.html", context)
