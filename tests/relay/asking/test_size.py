"""Ten thousand sessions: listed within a second, and no call waits for it."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

from relay.asking import relays_alive
from relay.clock import Clock
from relay.control.answers import (
    PROJECTS_SHOWN,
    SESSIONS_PER_PART,
    Answer,
    LiveRefusal,
    LiveSession,
    Origin,
    refusals_read,
    sessions_read,
    status_read,
)
from relay.control.channel import ControlChannel
from relay.control.messages import ExplainAsk, SessionsAsk, StatusAsk
from relay.control.receiver import Receiver
from relay.control.snapshot import Snapshot
from relay.core.addresses import FAMILY_IPV4, FiveTuple
from relay.core.allocation import Allocation
from relay.core.authentication import Accepted
from relay.core.effects import Effect
from relay.core.integrity import NO_KEYS, IntegrityKey
from relay.core.refusals import KEPT_SECONDS, LOOKED_AT_ONCE, Refusal
from relay.desk import LISTINGS_MAX, Desk
from relay.metering.meter import Meter
from relay.selectors import sessions_live
from tests.relay.asking.rig import PATIENCE_SECONDS
from tests.relay.fake_link import SERVER, World, settings_make
from tests.relay.transports.rig import until

SESSIONS = 10_000
LISTED_SECONDS_MAX = 1.0
BLOCKED_SECONDS_MAX = 0.05
BOOT = "00ff"
ORIGIN = Origin("node-1", 0, BOOT)


class NoJournal:
    def append(self, record: object) -> None:
        """Nothing is kept."""


class FullRelay:
    """A relay's core, meter and desk with ten thousand allocations, and no socket."""

    def __init__(self) -> None:
        world = World(settings_make(relay_ports=(10_000, 10_000 + SESSIONS)))
        self.turn = world.turn
        clock = Clock()

        def perform(effects: Iterable[Effect]) -> None:
            world.perform(list(effects))

        meter = Meter(NoJournal(), node="node-1", boot=BOOT)
        self.receiver = Receiver(self.turn, perform, clock.steady, node="node-1", boot=BOOT)
        for number in range(SESSIONS):
            meter.session_started(allocation_make(world, number), float(number))
        self.desk = Desk(
            turn=self.turn,
            receiver=self.receiver,
            reloader=None,  # type: ignore[arg-type]
            meter=meter,
            perform=perform,
            clock=clock,
        )


def allocation_make(world: World, number: int) -> Allocation:
    table = world.turn.table
    owner = f"prj_{number % 7:012}"
    allocation = table.create(
        five_tuple=FiveTuple("udp", (f"192.0.2.{number % 250}", 1024 + number), SERVER),
        user=Accepted(
            f"1900000000:{owner}/crd_{number:016}/label", owner, NO_KEYS, IntegrityKey(b"")
        ),
        transaction_id=bytes(12),
    )
    relayed = table.port_take(FAMILY_IPV4, world.now + 600)
    allocation.relayed[FAMILY_IPV4] = relayed
    table.entitlements.hold(allocation, world.now)
    table.enter(allocation)
    return allocation


@pytest.fixture(scope="module")
def full() -> FullRelay:
    return FullRelay()


class Busy:
    """The most processor time that a loop's thread spent between two turns, in seconds."""

    def __init__(self) -> None:
        self.most = 0.0

    async def watch(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            after = time.thread_time()
            self.most = max(self.most, after - before)
            before = after


@contextmanager
def listening(full: FullRelay, url: str) -> Iterator[Busy]:
    """The relay on the control channel, in a thread."""
    channel = ControlChannel(
        url=url,
        snapshot=lambda *, since: Snapshot(since, (), is_last=True),
        cut_off_seconds=0,
        log=lambda *_, **__: None,
    )
    busy, stopped, ready = Busy(), asyncio.Event(), threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        works = [asyncio.create_task(channel.run(full.receiver)), asyncio.create_task(busy.watch())]
        ready.set()
        await stopped.wait()
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_SECONDS)
        assert until(lambda: bool(relays_alive()), PATIENCE_SECONDS)
        yield busy
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(PATIENCE_SECONDS)
        loop.close()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The garbage collector of this process walks through all of pytest: that is not measured."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_ten_thousand_sessions_are_listed_within_a_second(full: FullRelay, channel: str) -> None:
    with listening(full, channel) as busy:
        seconds = []
        for _ in range(5):
            began = time.process_time()  # of both ends: others may keep this machine busy
            live = sessions_live(with_addresses=True)
            seconds.append(time.process_time() - began)
            assert len(live.sessions) == SESSIONS
            assert live.silent == ()
            assert live.left_off == 0
            assert len({session.name for session in live.sessions}) == SESSIONS
            assert live.sessions[0].started_at == SESSIONS - 1
    assert sorted(seconds)[2] < LISTED_SECONDS_MAX, seconds
    assert busy.most < BLOCKED_SECONDS_MAX


def test_sessions_are_told_in_small_parts_and_as_many_as_may_be(
    full: FullRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.desk.SESSIONS_MAX", 1000)
    parts = asyncio.run(parts_told(full, SessionsAsk("0" * 32)))
    read = [sessions_read(ORIGIN, json_of(part)) for part in parts]
    assert {len(sessions) for sessions, _ in read} == {SESSIONS_PER_PART}
    assert sum(len(sessions) for sessions, _ in read) == 1000
    assert read[-1][1] == SESSIONS - 1000
    assert [part["is_last"] for part in parts] == [*[False] * 4, True]


def test_session_that_ends_while_others_are_listed_is_left_out(full: FullRelay) -> None:
    table = full.turn.table
    *_, last = table.by_id

    ended: list[Allocation] = []

    def end_once_begun(parts: list[Answer]) -> None:
        if len(parts) == 1:
            ended.append(table.by_id.pop(last))

    parts = asyncio.run(parts_told(full, SessionsAsk("0" * 32), end_once_begun))
    table.by_id[last] = ended[0]
    names = {session.allocation for part in parts for session in sessions_of(part)}
    assert len(names) == SESSIONS - 1
    assert last not in names


def test_who_asks_too_often_is_not_answered(full: FullRelay) -> None:
    async def told() -> list[Answer]:
        parts: list[Answer] = []
        asked = SessionsAsk("0" * 32, "prj_none"), ExplainAsk("0" * 32, "nobody")
        for number in range(LISTINGS_MAX + 3):
            full.receiver.receive(asked[number % 2], parts.append)
        for _ in range(10):
            await asyncio.sleep(0)
        return parts

    assert len(asyncio.run(told())) == LISTINGS_MAX
    assert len(asyncio.run(told())) == LISTINGS_MAX  # their places are free again


def test_who_asks_why_waits_between_the_steps_and_is_told_the_latest(full: FullRelay) -> None:
    refusals, now = full.turn.guard.refusals, time.monotonic()
    full.turn.unix_offset_seconds = 10_000.0
    for number in range(2500):
        project = f"prj_{number % 25}"
        username = f"1900000000:{project}/crd_{number}/room"
        refusals.keep(Refusal(now + number / 2500, project, username, "Allocate", 486, "quota"))

    async def told() -> tuple[int, list[LiveRefusal]]:
        parts: list[Answer] = []
        turns = 0
        full.receiver.receive(ExplainAsk("0" * 32, "room"), parts.append)
        while not parts:
            await asyncio.sleep(0)
            turns += 1
        return turns, refusals_read(json_of(parts[0]))

    turns, found = asyncio.run(told())
    assert turns > refusals.count // LOOKED_AT_ONCE > 1
    assert [refusal.credential for refusal in found] == [f"crd_{n}" for n in range(2300, 2500)]
    assert found[0].occurred_at == now + 2300 / 2500 + 10_000.0
    refusals.purge(time.monotonic() + 2 * KEPT_SECONDS)


def test_status_names_the_projects_whose_data_was_no_media(full: FullRelay) -> None:
    for number in range(PROJECTS_SHOWN + 5):
        full.turn.guard.flagged[f"prj_{number}"] = number + 1
    (part,) = asyncio.run(parts_told(full, StatusAsk("0" * 32)))
    most = {f"prj_{number}": number + 1 for number in range(5, PROJECTS_SHOWN + 5)}
    assert status_read(json_of(part)).not_media == most


def json_of(part: Answer) -> Answer:
    """As it comes out of Valkey."""
    read: Answer = json.loads(json.dumps(part))
    return read


def sessions_of(part: Answer) -> list[LiveSession]:
    return sessions_read(ORIGIN, json_of(part))[0]


async def parts_told(
    full: FullRelay,
    message: SessionsAsk | StatusAsk,
    meanwhile: Callable[[list[Answer]], None] = lambda _: None,
) -> list[Answer]:
    """Every part of an answer; `meanwhile` is called with those that there are."""
    parts: list[Answer] = []
    done = asyncio.Event()

    def reply(part: Answer) -> None:
        parts.append(part)
        meanwhile(parts)
        if part["is_last"]:
            done.set()

    full.receiver.receive(message, reply)
    await done.wait()
    return parts
