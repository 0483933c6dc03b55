from __future__ import annotations

import pytest

from tests.relay.api.client import Api, Customer, customer_make


@pytest.fixture
def customer(db: None) -> Customer:
    return customer_make()


@pytest.fixture
def api(customer: Customer) -> Api:
    return Api(customer)
