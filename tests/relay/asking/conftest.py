from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.test import override_settings
from redis import Redis

from relay import asking, publishing
from relay.asking import relays_alive
from tests.relay.asking.rig import PATIENCE_SECONDS, Installation, installation_running
from tests.relay.transports.rig import until

PATIENT_ANSWER_SECONDS = 6.0  # where the machine is busy
DATABASES = 6  # of Valkey's sixteen, from which on each worker of these tests has one


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A control channel of this test's own: other tests have relays too."""
    monkeypatch.setattr(asking, "ANSWER_SECONDS", PATIENT_ANSWER_SECONDS)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    url = database_url(os.environ["REDIS_URL"], DATABASES + worker % DATABASES)
    with Redis.from_url(url) as valkey:
        valkey.flushdb()
    publishing.valkey.cache_clear()
    with override_settings(REDIS_URL=url):
        yield url
    publishing.valkey().close()
    publishing.valkey.cache_clear()


def database_url(url: str, number: int) -> str:
    """The same server, another database."""
    if url.startswith("unix:"):
        return f"{url.partition('?')[0]}?db={number}"
    return urlsplit(url)._replace(path=f"/{number}").geturl()


@pytest.fixture
def relays(tmp_path: Path, channel: str) -> Iterator[list[Installation]]:
    """Two relays that listen to it, node-1 and node-2."""
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                installation_running(tmp_path / name, {"REDIS_URL": channel}, node=name)
            )
            for name in ("node-1", "node-2")
        ]
        assert until(lambda: len(relays_alive()) == len(running), PATIENCE_SECONDS)
        yield running
