"""The runner on real sockets."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from relay import garbage
from relay.config import RelayConfig
from relay.core.addresses import FiveTuple
from relay.core.allocation import Allocation, RelayedAddress
from relay.core.effects import Effect
from relay.core.integrity import NO_KEYS, IntegrityKey
from relay.core.limits import ProjectLimits
from relay.core.stun import ALLOCATE
from relay.core.turn import TurnServer
from relay.machine import RelayFailedError, RelayStartError, descriptors_check
from relay.runner import Runner
from relay.transports.moderation import Moderation
from relay.transports.relayed import RelayedSockets
from tests.ports import free_port
from tests.relay.fake_link import settings_make

HOST = "127.0.0.1"


@pytest.fixture
def config(tmp_path: Path) -> RelayConfig:
    return RelayConfig(
        node="node-1",
        listen_addresses=(HOST,),
        listen_port=free_port(),
        journal_directory=tmp_path / "journal",
        flush_interval_seconds=1,
        turn=settings_make(relay_addresses=(HOST,)),
    )


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((HOST, 0))
        yield other.getsockname()[1]


@pytest.mark.replaces_parts
def test_relay_that_cannot_meter_stops_relaying(
    config: RelayConfig, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def serve() -> None:
        runner = Runner(config)

        def flush() -> bool:
            raise ValueError("a fault of the meter")

        monkeypatch.setattr(runner._journal, "flush", flush)
        monkeypatch.setattr(runner._journal, "close", lambda: True)
        await asyncio.wait_for(runner.run(), 10)

    with pytest.raises(RelayFailedError, match="a fault of the meter"):
        asyncio.run(serve())
    assert "relay_stopped" in capfd.readouterr().err


def test_taken_port_and_unwritable_journal_stop_the_start_with_a_reason(
    config: RelayConfig, taken_port: int, tmp_path: Path
) -> None:
    with pytest.raises(RelayStartError, match="MINDMORE_TURN_PORT"):
        Runner(replace(config, listen_port=taken_port))
    (tmp_path / "file").touch()
    with pytest.raises(RelayStartError, match="usage journal"):
        Runner(replace(config, journal_directory=tmp_path / "file" / "journal"))


def test_too_few_open_files_stop_the_start_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (63, 1000))
    with pytest.raises(RelayStartError, match=r"63 open files.*ulimit -n"):
        descriptors_check()


def test_relayed_socket_that_cannot_be_bound_is_closed(taken_port: int) -> None:
    turn = TurnServer(settings_make(relay_addresses=(HOST,)), bytes)
    relayed = RelayedSockets(turn, lambda _: None, lambda: 0.0, Moderation(0), None)
    allocation = Allocation(
        number=1,
        five_tuple=FiveTuple("udp", (HOST, 1), (HOST, 2)),
        owner="prj_a",
        username="",
        keys=NO_KEYS,
        key=IntegrityKey(b""),
        transaction_id=bytes(12),
    )
    with pytest.raises(OSError, match="in use"):
        relayed.open(allocation, RelayedAddress(HOST, taken_port, 0.0), None)
    assert allocation.relayed_send is None
    relayed.close_all()


@pytest.mark.replaces_parts
def test_what_is_due_at_once_may_become_due_again_before_it_is_done(
    config: RelayConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[float] = []

    def ring(now: float) -> list[Effect]:
        rung.append(now)
        return []

    async def serve() -> None:
        runner = Runner(config)
        deadlines = [0.0, 0.0, None]
        monkeypatch.setattr(runner._turn, "next_deadline", lambda: deadlines.pop(0))
        monkeypatch.setattr(runner._turn, "handle_deadline", ring)
        runner._timer_arm()
        runner._timer_arm()
        await asyncio.sleep(0.05)
        runner.clients.close()
        runner._relayed.close_all()
        runner._peers.close_all()
        runner._journal.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve())
    assert len(rung) == 1


def test_collector_is_told_of_everything_that_is_kept(
    config: RelayConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a hundred thousand revocations would be walked through once a minute."""
    told: list[int] = []

    async def serve() -> None:
        runner = Runner(config)
        now = 100.0
        control = runner._turn.control
        control.credential_revoke("prj_a", "crd_a", 4e9, now)
        control.project_limits_set("prj_b", ProjectLimits(), now)
        runner._turn.guard.note(ALLOCATE, 486, "prj_a", "1:prj_a/crd_a/x", "the quota", now)

        def tell(kept: int) -> None:
            told.append(kept)
            runner.stop()

        monkeypatch.setattr(garbage, "COLLECT_SECONDS", 0.01)
        monkeypatch.setattr(garbage, "collect_if_quiet", tell)
        await runner.serve()

    asyncio.run(serve())
    assert told[0] == 3


def test_collector_looks_at_everything_only_while_little_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collected: list[bool] = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(True))
    garbage.collect_if_quiet(garbage.KEPT_MAX + 1)
    assert collected == []
    garbage.collect_if_quiet(garbage.KEPT_MAX)
    assert collected == [True]
