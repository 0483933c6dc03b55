"""A change that a relay has no room for is not lost: it holds as soon as there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from relay.control.channel import ControlChannel
from relay.control.keys import FIELD
from relay.control.messages import ControlMessage, CredentialRevoke, message_encode
from relay.control.receiver import Receiver
from relay.control.snapshot import Snapshot
from relay.core.credentials import TurnUsername
from tests.relay.fake_link import World, settings_make

PATIENCE_SECONDS = 20.0
PROJECT = "prj_a"


class Stream:
    """A client of a Valkey whose stream brings what the test puts there."""

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, dict[bytes, bytes]]] = []

    async def xinfo_stream(self, _name: str) -> dict[str, object]:
        return {"last-generated-id": b"0-0", "first-entry": None}

    async def set(self, *_: object, **__: object) -> None:
        pass

    async def zscan(self, *_: object, **__: object) -> tuple[int, list[object]]:
        return 0, []

    async def xread(self, *_: object, **__: object) -> list[object]:
        await asyncio.sleep(0.01)
        new, self.entries = self.entries, []
        return [(b"stream", new)] if new else []

    async def delete(self, *_: object) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Told:
    """A relay with room for one override, its channel, and what the database says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(settings_make(overrides_max=1))
        self.rows: list[ControlMessage] = []  # each has the next version
        self.stream = Stream()
        self.said: list[str] = []
        self.snapshots = 0
        self.channel = ControlChannel(
            url="redis://127.0.0.1:1/0",
            snapshot=self.snapshot,
            cut_off_seconds=60,
            log=lambda event, **_: self.said.append(event),
        )
        monkeypatch.setattr(self.channel, "_redis", self.stream)
        monkeypatch.setattr("relay.control.channel.SNAPSHOT_SECONDS", 0.05)

    def snapshot(self, *, since: int) -> Snapshot:
        self.snapshots += 1
        return Snapshot(len(self.rows), self.rows[since:], is_last=True)

    def revoke(self, credential: str, seconds: int) -> None:
        until = self.world.now + seconds
        self.rows.append(CredentialRevoke(PROJECT, credential, until))

    def publish(self) -> None:
        version = len(self.rows)
        data = message_encode(self.rows[-1], version)
        self.stream.entries.append((b"%d-0" % version, {FIELD: data}))

    def is_revoked(self, credential: str) -> bool:
        username = TurnUsername(int(self.world.now) + 600, PROJECT, credential, "")
        return self.world.turn.table.entitlements.is_revoked(username)

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if fact():
                    return
                await asyncio.sleep(0.01)

    async def some_snapshots(self) -> None:
        seen = self.snapshots
        await self.until(lambda: self.snapshots > seen + 3)

    def while_it_runs(self, scenario: Callable[[], Awaitable[None]]) -> None:
        receiver = Receiver(
            self.world.turn, lambda _: None, lambda: self.world.now, node="node", boot="boot"
        )

        async def run() -> None:
            task = asyncio.create_task(self.channel.run(receiver))
            try:
                await scenario()
            finally:
                task.cancel()
                await asyncio.wait([task])

        asyncio.run(run())


def test_revocation_that_found_no_room_in_a_snapshot_holds_once_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(monkeypatch)
    told.revoke("crd_first", 100)
    told.revoke("crd_second", 9999)

    async def scenario() -> None:
        await told.until(lambda: "control_message_has_no_room" in told.said)
        await told.some_snapshots()
        assert (told.is_revoked("crd_first"), told.is_revoked("crd_second")) == (True, False)
        told.world.now += 101  # the first has ended
        await told.until(lambda: told.is_revoked("crd_second"))
        await told.until(lambda: "control_has_room_again" in told.said)

    told.while_it_runs(scenario)
    assert told.said.count("control_message_has_no_room") == 1


def test_revocation_that_found_no_room_when_it_was_published_holds_once_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(monkeypatch)
    told.revoke("crd_first", 100)

    async def scenario() -> None:
        await told.until(lambda: told.is_revoked("crd_first"))
        told.revoke("crd_second", 9999)
        told.publish()
        await told.until(lambda: "control_message_has_no_room" in told.said)
        await told.some_snapshots()
        assert not told.is_revoked("crd_second")
        told.world.now += 101
        await told.until(lambda: told.is_revoked("crd_second"))
        await told.until(lambda: "control_has_room_again" in told.said)

    told.while_it_runs(scenario)
    assert told.said.count("control_message_has_no_room") == 1
