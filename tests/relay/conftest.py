from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from relay.publishing import valkey


@pytest.fixture
def valkey_apart(settings: Settings) -> Iterator[None]:
    """An empty database of the tests' Valkey that no other test uses at the same time."""
    number = 1 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    settings.REDIS_URL = f"{settings.REDIS_URL.partition('?')[0]}?db={number}"
    valkey.cache_clear()
    valkey().flushdb()
    yield
    valkey().close()
    valkey.cache_clear()
