from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Files, certificate_write
from tests.relay.transports.rig import RunningRelay, relay_running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certificate_write(tmp_path_factory.mktemp("certificate"), "turn.test")


@pytest.fixture
def relay(tmp_path: Path, certificate: Files) -> Iterator[RunningRelay]:
    """A relay on 127.0.0.1 and ::1, with a certificate."""
    with relay_running(tmp_path, certificate) as running:
        yield running
