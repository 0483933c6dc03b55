from __future__ import annotations

from billing.models.invoice import Invoice, InvoiceLine
from billing.models.price_book import PriceBookVersion

__all__ = ["Invoice", "InvoiceLine", "PriceBookVersion"]
