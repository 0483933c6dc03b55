"""The channel while the database is set up for the first time: nothing to be warned of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.db import OperationalError, ProgrammingError, connection, transaction

from relay.control.channel import ControlChannel
from relay.control.receiver import Receiver
from relay.control.snapshot import Snapshot
from tests.relay.fake_link import World

PATIENCE_SECONDS = 20.0


@pytest.fixture
def no_table(db: None) -> ProgrammingError:
    """What the database says where a table is missing."""
    with (
        pytest.raises(ProgrammingError) as caught,
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT * FROM relay_no_such_table")
    return caught.value


async def said_until(event: str, faults: list[Exception]) -> list[tuple[str, Any]]:
    """What a channel says of its database, which fails like this and then answers."""
    said: list[tuple[str, Any]] = []
    done = asyncio.Event()

    def log(name: str, /, **facts: object) -> None:
        if facts.get("what") != "valkey":
            said.append((name, facts.get("level", "info")))
        if name == event:
            done.set()

    def snapshot(*, since: int) -> Snapshot:
        if faults:
            raise faults.pop(0)
        return Snapshot(since, (), is_last=True)

    channel = ControlChannel(
        url="redis://127.0.0.1:1/0", snapshot=snapshot, cut_off_seconds=60, log=log, process=0
    )
    world = World()
    receiver = Receiver(world.turn, lambda _: None, lambda: 0.0, node="node", boot="boot")
    running = asyncio.create_task(channel.run(receiver))
    try:
        await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)
    finally:
        running.cancel()
        await asyncio.wait({running})
    return said


def test_tables_that_are_still_to_be_made_are_no_warning(no_table: ProgrammingError) -> None:
    said = asyncio.run(said_until("control_snapshot", [no_table, no_table]))
    assert said == [("control_awaits_tables", "info"), ("control_snapshot", "info")]


def test_database_that_goes_away_before_its_tables_are_made_is_lost(
    no_table: ProgrammingError,
) -> None:
    said = asyncio.run(said_until("control_found_again", [no_table, OperationalError("gone")]))
    assert said[:2] == [("control_awaits_tables", "info"), ("control_lost", "warning")]
