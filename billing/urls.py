"""The addresses of billing's pages."""

from __future__ import annotations

from django.urls import include, path

from billing import views

invoice_patterns = (
    [
        path("", views.invoices, name="invoices"),
        path("<str:text>/", views.invoice_month, name="invoice_month"),
    ],
    "billing",
)

urlpatterns = [
    path("dashboard/", views.dashboard, name="dashboard"),
    path("billing/", include(invoice_patterns)),
]
