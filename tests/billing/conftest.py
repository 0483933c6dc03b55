from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from accounts.models import Organisation, Project
from accounts.services import project_create
from billing.models import PriceBookVersion


@pytest.fixture
def price(db: None) -> PriceBookVersion:
    """The first price, also where a test before this one emptied all tables."""
    version, _ = PriceBookVersion.objects.get_or_create(
        valid_from=datetime(2000, 1, 1, tzinfo=UTC), defaults={"price_per_gb": Decimal("0.05")}
    )
    return version


@pytest.fixture
def second_project(organisation: Organisation) -> Project:
    return project_create(organisation=organisation, name="Staging")
