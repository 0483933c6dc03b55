"""What billing holds about people: what their organisations used and owe. No address."""

from __future__ import annotations

from privacy.registry import Category, Purpose, registry
from privacy.retention.classes import BILLING

registry.register(
    "billing.Invoice",
    category=Category.ACCOUNT,
    purposes=(Purpose.BILLING, Purpose.LEGAL),
    retention=BILLING,
    personal={
        "metered_bytes": "invoices",
        "amount_cents": "invoices",
        "month": "invoices",
    },
    technical={
        "id": "row key",
        "organisation": "points at a row of ours",
        "status": "state of the document",
        "currency": "the same for everybody",
        "created_at": "time of the row, not of a person's doing",
        "changed_at": "time of the row, not of a person's doing",
    },
)
registry.register(
    "billing.InvoiceLine",
    category=Category.ACCOUNT,
    purposes=(Purpose.BILLING, Purpose.LEGAL),
    retention=BILLING,
    personal={
        "description": "invoices",
        "metered_bytes": "invoices",
        "free_bytes": "invoices",
        "amount_cents": "invoices",
    },
    technical={
        "id": "row key",
        "invoice": "points at a row of ours",
        "project": "points at a row of ours",
        "price": "points at a row of ours",
        "price_per_gb": "from the price book",
    },
)
registry.register_impersonal(
    "billing.PriceBookVersion", because="prices, the same for all customers"
)
