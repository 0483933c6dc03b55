from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from accounts.models import Project
from relay.publishing import valkey
from tests.relay.control.fleet import Fleet


@pytest.fixture
def fleet(
    transactional_db: None, project: Project, settings: Settings, tmp_path: Path
) -> Iterator[Fleet]:
    """Valkey and the database run; the relays are started by the test."""
    made = Fleet(tmp_path, project)
    settings.REDIS_URL = made.valkey.url
    valkey.cache_clear()
    try:
        made.valkey.start()
        yield made
    finally:
        made.close()
        valkey().close()
        valkey.cache_clear()
