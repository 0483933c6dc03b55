from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.certificates import Files, certificate_write
from tests.relay.interop.servers import Server, server_running

StartRelay = Callable[..., Server]


@pytest.fixture
def relay_start(tmp_path: Path) -> Iterator[StartRelay]:
    """Starts a relay as `relay_start(NAME=value)` with MINDMORE_TURN_NAME set, ends it after."""
    with ExitStack() as stack:

        def start(**settings: object) -> Server:
            environment = {f"MINDMORE_TURN_{name}": str(value) for name, value in settings.items()}
            return stack.enter_context(server_running("mindmore", tmp_path, environment))

        yield start


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate signed by itself, and its key."""
    return certificate_write(tmp_path_factory.mktemp("certificate"), "turn.test")
