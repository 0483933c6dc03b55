from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.certificates import Files, certificate_write
from tests.relay.interop.servers import Server, server_running

BOTH = ["mindmore", "coturn"]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """For this machine; its own authority."""
    return certificate_write(tmp_path_factory.mktemp("certificate"), "turn.test")


@pytest.fixture(scope="session")
def start(
    tmp_path_factory: pytest.TempPathFactory, certificate: Files
) -> Iterator[Callable[[str], Server]]:
    """The server of a name, which all tests share."""
    with ExitStack() as stack:

        @cache
        def start(name: str) -> Server:
            home = tmp_path_factory.mktemp(name)
            return stack.enter_context(server_running(name, home, certificate=certificate))

        yield start


@pytest.fixture(params=BOTH)
def server(request: pytest.FixtureRequest, start: Callable[[str], Server]) -> Server:
    """The relay, and coturn: where both fail, the test is wrong."""
    return start(request.param)


@pytest.fixture
def relay(tmp_path: Path, certificate: Files) -> Iterator[Server]:
    """The relay, for one test alone."""
    with server_running("mindmore", tmp_path, certificate=certificate) as running:
        yield running
