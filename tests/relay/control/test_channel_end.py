"""The channel ends when it is told to, whatever it was doing, and does not fill the log."""

from __future__ import annotations

import asyncio
import contextlib
from unittest.mock import ANY

import pytest

from relay.control.channel import ControlChannel
from relay.control.keys import FIELD
from relay.control.messages import CredentialRevoke
from relay.control.receiver import Receiver
from relay.control.snapshot import Snapshot
from tests.relay.fake_link import World, settings_make

PATIENCE_SECONDS = 20.0


class Client:
    """A client of Valkey that loses a cancellation while it connects, as redis-py's may."""

    def __init__(self) -> None:
        self.connecting = asyncio.Event()

    async def xinfo_stream(self, _name: str) -> dict[str, object]:
        self.connecting.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(2 * PATIENCE_SECONDS)
        return {"last-generated-id": b"0-0", "first-entry": None}

    async def set(self, *_: object, **__: object) -> None:
        pass

    async def zscan(self, *_: object, **__: object) -> tuple[int, list[object]]:
        return 0, []

    async def xread(self, *_: object, **__: object) -> list[object]:
        await asyncio.sleep(0.05)
        return []

    async def delete(self, *_: object) -> None:
        pass

    async def aclose(self) -> None:
        pass


def test_channel_ends_although_its_client_loses_the_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def end_while_connecting() -> None:
        channel = ControlChannel(
            url="redis://127.0.0.1:1/0",
            snapshot=lambda *, since: Snapshot(since, [], True),
            cut_off_seconds=60,
            log=lambda *_, **__: None,
        )
        client = Client()
        monkeypatch.setattr(channel, "_redis", client)
        world = World()
        receiver = Receiver(world.turn, lambda _: None, lambda: 0.0, node="node", boot="boot")
        running = asyncio.create_task(channel.run(receiver))
        await client.connecting.wait()
        running.cancel()
        done, _ = await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
        assert done == {running}
        assert running.cancelled()

    asyncio.run(end_while_connecting())


def test_flood_of_what_is_no_message_or_has_no_room_fills_no_log() -> None:
    lines: list[tuple[str, dict[str, object]]] = []

    async def flood() -> None:
        channel = ControlChannel(
            url="redis://127.0.0.1:1/0",
            snapshot=lambda *, since: Snapshot(since, [], True),
            cut_off_seconds=60,
            log=lambda event, **facts: lines.append((event, facts)),
        )
        world = World(settings_make(overrides_max=0))
        channel._receiver = Receiver(
            world.turn, lambda _: None, lambda: 0.0, node="node", boot="boot"
        )
        for number in range(1000):
            channel._entry_take({FIELD: b"no message"})
            channel._apply(CredentialRevoke("prj_a", f"crd_{number}", 4e9), number)
        assert channel.counts == {"refused": 1000, "no room": 1000}

    asyncio.run(flood())
    assert lines == [
        ("control_message_refused", {"level": "warning", "reason": ANY, "refused": 1}),
        ("control_message_has_no_room", {"level": "error", "kind": "CredentialRevoke"}),
    ]
