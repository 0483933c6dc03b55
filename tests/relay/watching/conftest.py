from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.certificates import Files, certificate_write
from tests.ports import free_port
from tests.relay.interop.servers import HOST, Server, server_running
from tests.relay.watching.scrape import Watched

StartRelay = Callable[..., Watched]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certificate_write(tmp_path_factory.mktemp("certificate"), "turn.test")


@pytest.fixture
def relay_start(tmp_path: Path, certificate: Files) -> Iterator[StartRelay]:
    """Starts a relay of every transport as `relay_start(NAME=value)`, ends it after."""
    with ExitStack() as stack:

        def start(home: str = "relay", **settings: object) -> Watched:
            (tmp_path / home).mkdir()
            metrics_port = int(str(settings.pop("METRICS_PORT", free_port())))
            changes = {
                "MINDMORE_TURN_LISTEN_ADDRESS": f"{HOST},::1",
                "MINDMORE_TURN_TLS_PORT": str(free_port()),
                "MINDMORE_TURN_CERTIFICATE": str(certificate[0]),
                "MINDMORE_TURN_CERTIFICATE_KEY": str(certificate[1]),
                "MINDMORE_TURN_METRICS_PORT": str(metrics_port),
                **{f"MINDMORE_TURN_{name}": str(value) for name, value in settings.items()},
            }
            server: Server = stack.enter_context(
                server_running("mindmore", tmp_path / home, changes)
            )
            watched = Watched(server, metrics_port)
            if metrics_port:
                watched.answer_wait()
            return watched

        yield start


@pytest.fixture
def relay(relay_start: StartRelay) -> Watched:
    return relay_start()
