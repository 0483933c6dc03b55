from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.transports.rings import Ring
from tests.certificates import Files, certificate_write
from tests.relay.rings import ring_or_skip
from tests.relay.transports.relayed_world import RelayedWorld
from tests.relay.transports.rig import RunningRelay, relay_running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certificate_write(tmp_path_factory.mktemp("certificate"), "turn.test")


@pytest.fixture
def relay(tmp_path: Path, certificate: Files) -> Iterator[RunningRelay]:
    """A relay on 127.0.0.1 and ::1, with a certificate."""
    with relay_running(tmp_path, certificate) as running:
        yield running


@pytest.fixture(params=["sockets", "ring"])
def ring(request: pytest.FixtureRequest) -> Iterator[Ring | None]:
    """What receives: the sockets one by one, or an io_uring."""
    if request.param == "sockets":
        yield None
        return
    made = ring_or_skip()
    yield made
    made.close()


@pytest.fixture
def world(ring: Ring | None) -> Iterator[RelayedWorld]:
    relayed = RelayedWorld(ring)
    yield relayed
    relayed.sockets.close_all()
