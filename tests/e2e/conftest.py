from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.service import RELAY_ADDRESS
from tests.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    service = Stack(
        tmp_path_factory.mktemp("service") / "home", {"MINDMORE_TURN_RELAY_ADDRESS": RELAY_ADDRESS}
    )
    service.start_and_wait()
    yield service
    service.close()
