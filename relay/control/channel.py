"""The channel from the Django side to one relay process: a stream in Valkey, and the database.

    relay.services.control ──▶ database, then stream ──▶ this ──▶ receiver ──▶ core
                                   └────── snapshot ──────▶┘

The stream brings a change at once; the database makes sure that it is never lost. A snapshot (what
is newer there than what this relay has) is read at the start, after every reconnect, where a
version is missing, and every ten seconds. Either of the two may be away: the relay goes on, and
this tries again. Only after `cut_off_seconds` without them are new allocations refused.

Nothing here blocks the event loop: the database is read in a thread, and what it says is applied in
slices.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from relay.control.keys import ALIVE, ANNOUNCED, FIELD, REPLY, STREAM
from relay.control.ledger import Ledger
from relay.control.messages import (
    ControlMessage,
    MessageError,
    announcement_read,
    message_decode,
)
from relay.control.receiver import Answer, Receiver, Reply
from relay.control.snapshot import Snapshot, SnapshotReader
from relay.core.throttle import SilenceLog
from relay.log import fault_facts

ALIVE_SECONDS: Final = 10
REPLY_SECONDS: Final = 10
BLOCK_SECONDS: Final = 2.0
ANSWER_SECONDS_MAX: Final = 5.0  # Valkey's to any command, and to a connection
READ_COUNT: Final = 100
ANNOUNCED_COUNT: Final = 500
RETRY_SECONDS: Final = 0.5
RETRY_SECONDS_MAX: Final = 2.0
DATABASE_RETRY_SECONDS_MAX: Final = 5.0
SNAPSHOT_SECONDS: Final = 10.0
MISSING_SECONDS: Final = 0.25  # as long may a version be late that was overtaken
WATCH_SECONDS: Final = 0.5
SLICE_SECONDS: Final = 0.005  # of the event loop at a time
REPLIES_MAX: Final = 1000
NO_TABLE: Final = "UndefinedTable"  # what the database calls it before it was set up
NOTHING: Final = "0-0"  # the id before every entry

Result = TypeVar("Result")


class ControlChannel:
    """One process's end of the channel.

    Attributes:
        counts: what came and was not applied, by reason.
        is_cut_off: whether new allocations are refused.
    """

    def __init__(
        self,
        *,
        url: str,
        snapshot: SnapshotReader,
        cut_off_seconds: int,
        log: Callable[..., None],
        process: int = 0,
    ) -> None:
        """A channel that `run` opens.

        Args:
            url: of Valkey.
            snapshot: see `SnapshotReader`.
            cut_off_seconds: see above; 0: new allocations are never refused.
            log: takes an event's name and its facts.
            process: which of this node's processes; for those who ask.
        """
        self.counts: Counter[str] = Counter()
        self.is_cut_off = False
        self._redis: Redis = redis_client(url)
        self._snapshot = snapshot
        self._cut_off_seconds = cut_off_seconds
        self._log = log
        self._process = process
        self._ledger = Ledger()
        self._often = SilenceLog()
        self._position: str | None = None
        self._is_connected = False
        self._has_snapshot = False
        self._is_full = False  # something waits for room
        self._breaks = 0  # of the stream, after which only a new snapshot will do
        self._outage: dict[str, str] = {}
        self._awaits_tables = False
        self._catch_up = asyncio.Event()
        self._replies: asyncio.Queue[tuple[str, Answer]] = asyncio.Queue(REPLIES_MAX)

    async def run(self, receiver: Receiver) -> None:
        """Bring messages to `receiver` until cancelled."""
        self._receiver = receiver
        try:
            async with asyncio.TaskGroup() as group:
                for work in (self._follow, self._read_database, self._answer, self._watch):
                    group.create_task(self._again_and_again(work))
        finally:
            await self._close()

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        """A part of this that fails is begun anew: the relay needs none of them."""
        while True:
            try:
                await work()
            except Exception as error:  # whatever it is, calls go on
                self._log(
                    "control_fault",
                    level="error",
                    work=work.__name__,
                    **fault_facts(error),
                )
            await asyncio.sleep(RETRY_SECONDS_MAX)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self._redis.delete(self._alive_key)
        except (RedisError, OSError, TimeoutError):
            pass
        await self._redis.aclose()

    # --- the stream -------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Read the stream; connect again when the connection fails."""
        pause = RETRY_SECONDS
        while True:
            try:
                await self._connect()
                pause = RETRY_SECONDS
                while True:
                    cancelled_check()
                    await self._read()
            except (RedisError, OSError) as error:
                self._outage_begins("valkey", error)
            finally:
                self._is_connected = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _connect(self) -> None:
        """Find the place in the stream, and whatever may have been missed."""
        await self._place_find()
        await self._heartbeat()
        await self._announced_read()
        self._is_connected = True
        self._outage_ends("valkey")
        self._catch_up.set()

    async def _read(self) -> None:
        """Take what is new, or wait for it for a while."""
        streams: Any = await self._redis.xread(
            {STREAM: self._position or NOTHING}, count=READ_COUNT, block=int(BLOCK_SECONDS * 1000)
        )
        for _, entries in streams:
            for entry, members in entries:
                self._position = entry.decode()
                self._entry_take(members or {})
        await self._heartbeat()

    async def _place_find(self) -> None:
        """Where to read on: behind what was read last, or else behind what is there now.

        Where the stream no longer joins what was read, something may have been missed: only a
        snapshot tells.
        """
        newest, oldest = await self._stream_ends()
        position = self._position
        if position is None:
            self._position = newest
            return
        is_younger = _entry_key(newest) < _entry_key(position)
        if is_younger:
            self._position = newest
        if is_younger or _entry_key(oldest) > _entry_key(position):
            self._breaks += 1
            self._has_snapshot = False
            self._log("control_stream_is_another", level="warning")

    async def _stream_ends(self) -> tuple[str, str]:
        """The ids of the newest entry that there ever was, and of the oldest that is there."""
        try:
            info: Mapping[str, Any] = await self._redis.xinfo_stream(STREAM)
        except ResponseError:  # there is none yet
            return NOTHING, NOTHING
        newest = info["last-generated-id"].decode()
        first = info["first-entry"]
        return newest, first[0].decode() if first else newest

    def _entry_take(self, members: Mapping[bytes, bytes]) -> None:
        try:
            envelope = message_decode(members.get(FIELD, b""))
        except MessageError as error:
            self.counts["refused"] += 1
            if self._often.is_due("refused", asyncio.get_running_loop().time()):
                facts = {"reason": str(error), "refused": self.counts["refused"]}
                self._log("control_message_refused", level="warning", **facts)
            return
        had = self._ledger.has
        for message in self._ledger.take(envelope):
            self._apply(message, had)
        if self._ledger.is_missing_some:
            self._catch_up.set()

    def _apply(self, message: ControlMessage, had: int) -> None:
        """Apply a message; what there is no room for, a snapshot of what is newer than `had` has
        again."""
        if self._receiver.receive(message, self._reply_of(message)):
            return
        self.counts["no room"] += 1
        self._ledger.refused(had)
        if not self._is_full:
            self._is_full = True
            kind = type(message).__name__
            self._log("control_message_has_no_room", level="error", kind=kind)

    async def _announced_read(self) -> None:
        """The usernames that were announced before this process listened."""
        cursor: int = 0
        while True:
            found: Any = await self._redis.zscan(ANNOUNCED, cursor, count=ANNOUNCED_COUNT)
            cursor, members = found
            for member, until in members:
                try:
                    self._apply(announcement_read(member, until), self._ledger.has)
                except MessageError:
                    self.counts["refused"] += 1
            if not cursor:
                return

    async def _heartbeat(self) -> None:
        value = json.dumps({"process": self._process})
        await self._redis.set(self._alive_key, value, ex=ALIVE_SECONDS)

    @property
    def _alive_key(self) -> str:
        return ALIVE.format(node=self._receiver.node, boot=self._receiver.boot)

    # --- the database -----------------------------------------------------------------------------

    async def _read_database(self) -> None:
        """Take a snapshot whenever something asks for one, and every so often."""
        pause = RETRY_SECONDS
        while True:
            try:
                await self._snapshot_take()
            except Exception as error:  # the database's own, which this does not know
                self._outage_begins("database", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, DATABASE_RETRY_SECONDS_MAX)
                continue
            pause = RETRY_SECONDS
            self._outage_ends("database")
            try:
                async with asyncio.timeout(SNAPSHOT_SECONDS):
                    await self._catch_up.wait()
            except TimeoutError:
                continue
            if self._ledger.is_missing_some:
                await asyncio.sleep(MISSING_SECONDS)

    async def _snapshot_take(self) -> None:
        self._catch_up.clear()
        breaks = self._breaks
        since = self._ledger.snapshot_begins()
        refused = self.counts["no room"]
        page = await self._page_read(since)
        if page.version < since:
            self._log("control_database_is_another", level="warning")
            self._ledger.begin_anew()
            since = 0
            page = await self._page_read(since)
        await self._apply_in_slices(page.messages, since)
        while not page.is_last:
            page = await self._page_read(page.version)
            await self._apply_in_slices(page.messages, since)
        for message in self._ledger.snapshot_ends(page.version):
            self._apply(message, since)
        if self._is_full and refused == self.counts["no room"]:
            self._is_full = False
            self._log("control_has_room_again")
        if not self._has_snapshot and breaks == self._breaks:
            self._has_snapshot = True
            self._log("control_snapshot", version=page.version)

    async def _page_read(self, since: int) -> Snapshot:
        return await in_a_thread(partial(self._snapshot, since=since))

    async def _apply_in_slices(self, messages: Iterable[ControlMessage], had: int) -> None:
        loop = asyncio.get_running_loop()
        slice_ends = loop.time() + SLICE_SECONDS
        for message in messages:
            self._apply(message, had)
            if loop.time() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = loop.time() + SLICE_SECONDS

    # --- answers ----------------------------------------------------------------------------------

    def _reply_of(self, message: ControlMessage) -> Reply:
        """Where the answer to a message goes; nowhere for one that nobody waits for."""
        reply_to: str | None = getattr(message, "reply_to", None)
        if reply_to is None:
            return _no_reply

        def reply(answer: Answer) -> None:
            try:
                self._replies.put_nowait((reply_to, answer))
            except asyncio.QueueFull:
                self.counts["answers dropped"] += 1

        return reply

    async def _answer(self) -> None:
        """Send answers as they come; one that cannot be sent is not waited for any more."""
        while True:
            cancelled_check()
            reply_to, answer = await self._replies.get()
            try:
                await self._answer_send(reply_to, answer)
            except (RedisError, OSError):
                self.counts["answers dropped"] += 1

    async def _answer_send(self, reply_to: str, answer: Answer) -> None:
        origin = {
            "node": self._receiver.node,
            "boot": self._receiver.boot,
            "process": self._process,
        }
        key = REPLY.format(reply_to=reply_to)
        async with self._redis.pipeline() as pipeline:
            pipeline.rpush(key, json.dumps({**origin, **answer}))
            pipeline.expire(key, REPLY_SECONDS)
            await pipeline.execute()

    # --- being cut off ----------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Refuse new allocations while this has been cut off for too long."""
        loop = asyncio.get_running_loop()
        in_touch_at = loop.time()
        while True:
            now = loop.time()
            if self._is_connected and self._has_snapshot:
                in_touch_at = now
            silent = now - in_touch_at
            cut_off = 0 < self._cut_off_seconds <= silent
            if cut_off != self.is_cut_off:
                self.is_cut_off = cut_off
                self._receiver.cut_off_set(cut_off)
                if cut_off:
                    self._log("control_cut_off", level="error", new_allocations="refused")
                else:
                    self._log("control_no_longer_cut_off", new_allocations="taken")
            await asyncio.sleep(WATCH_SECONDS)

    def _outage_begins(self, what: str, error: Exception) -> None:
        kind = type(error).__name__
        if type(error.__cause__).__name__ == NO_TABLE and not self._has_snapshot:
            if not self._awaits_tables:
                self._awaits_tables = True
                self._log("control_awaits_tables")
            return
        if what not in self._outage:
            self._outage[what] = kind
            self._log("control_lost", level="warning", what=what, error=kind)

    def _outage_ends(self, what: str) -> None:
        if self._outage.pop(what, None) is not None:
            self._log("control_found_again", what=what)


def redis_client(url: str) -> Redis:
    """A client that answers or fails within seconds; whoever uses it tries again himself."""
    return Redis.from_url(
        url,
        protocol=2,
        socket_timeout=ANSWER_SECONDS_MAX,
        socket_connect_timeout=ANSWER_SECONDS_MAX,
        retry=Retry(NoBackoff(), 0),
    )


def cancelled_check() -> None:
    """End a task that was cancelled while the Redis client connected, which loses that.

    Raises:
        CancelledError: it was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def in_a_thread(work: Callable[[], Result]) -> Result:
    """Run what blocks in a thread that nobody waits for at the end.

    A database that hangs would otherwise hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        outcome: tuple[Result | None, Exception | None]
        try:
            outcome = work(), None
        except Exception as error:  # for whoever waits
            outcome = None, error
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    threading.Thread(target=run, name="control-snapshot", daemon=True).start()
    return await done


def _no_reply(answer: Answer) -> None:
    """Nobody waits."""


def _entry_key(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)
