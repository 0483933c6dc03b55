"""The operator's pages: books to read, prices to add."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib import admin
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils import timezone

from accounts.models import Project, User
from billing.admin import PriceBookVersionForm
from billing.models import Invoice, PriceBookVersion
from billing.services import invoices_draft
from relay.models import QuarantinedRecord, UsageHour

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("price")]


@pytest.fixture
def request_of_operator(rf: RequestFactory) -> HttpRequest:
    request = rf.get("/admin/")
    request.user = User.objects.create_superuser(email="root@example.org", password="x")
    return request


@pytest.mark.parametrize("model", [Invoice, PriceBookVersion, UsageHour, QuarantinedRecord])
def test_books_are_read_not_changed(model: type, request_of_operator: HttpRequest) -> None:
    page = admin.site._registry[model]
    assert page.has_view_permission(request_of_operator)
    assert not page.has_change_permission(request_of_operator)
    assert not page.has_delete_permission(request_of_operator)
    assert page.has_add_permission(request_of_operator) == (model is PriceBookVersion)


@pytest.mark.parametrize("model", [Invoice, PriceBookVersion, UsageHour, QuarantinedRecord])
def test_lists_and_objects_are_shown(
    model: type, request_of_operator: HttpRequest, project: Project
) -> None:
    UsageHour.objects.create(
        project=project,
        hour=datetime(2026, 3, 1, tzinfo=UTC),
        client_received_bytes=1,
        client_sent_bytes=2,
        peer_received_bytes=3,
        peer_sent_bytes=4,
    )
    invoices_draft(now=timezone.now())
    QuarantinedRecord.objects.create(
        digest="0", reason="future", node="n", boot="b", payload={}, received_at=timezone.now()
    )
    page = admin.site._registry[model]
    listed = page.changelist_view(request_of_operator)
    assert listed.status_code == 200
    listed.render()  # type: ignore[attr-defined]
    [found, *_] = model._default_manager.all()  # type: ignore[attr-defined]
    shown = page.changeform_view(request_of_operator, str(found.pk))
    assert shown.status_code == 200


@pytest.mark.parametrize(("hours", "valid"), [(48, True), (-1, False)])
def test_price_is_added_for_the_future_only(hours: int, *, valid: bool) -> None:
    start = (timezone.now() + timedelta(hours=hours)).replace(minute=0, second=0, microsecond=0)
    form_class = admin.site._registry[PriceBookVersion].get_form
    form = form_class(HttpRequest(), change=False)(
        {
            "valid_from": f"{start:%Y-%m-%d %H:%M:%S}",
            "valid_from_0": f"{start:%Y-%m-%d}",
            "valid_from_1": f"{start:%H:%M:%S}",
            "price_per_gb": "0.04",
            "free_bytes_per_month": "0",
            "counted_bytes": "client_sent",
        }
    )
    assert isinstance(form, PriceBookVersionForm)
    assert form.is_valid() == valid
    if valid:
        form.save()
        assert PriceBookVersion.objects.filter(price_per_gb=Decimal("0.04")).exists()
