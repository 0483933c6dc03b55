"""The endpoint of metrics and health: a thread with an event loop of its own.

    GET /metrics   what Prometheus reads        GET /health   200, or 503 with reasons

It shares nothing with the relay but the processor, and of that it takes a bounded part: at most 20
connections a second are looked at, 16 at once, for at most ten seconds each, and what they ask for
is worked out at most four times a second. The rest waits in the kernel's queue.

Several processes of one relay know each other by abstract unix sockets that carry their parent's
number; whichever has the port asks the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Final

from relay.core.addresses import SockAddress
from relay.log import fault_facts, log
from relay.watching.http import REQUEST_BYTES_MAX, Request, Response, request_parse
from relay.watching.observation import ProcessFacts
from relay.watching.report import health_text, metrics_text
from relay.watching.snapshot import Snapshot, snapshot_absent, snapshot_decode

ASK_SECONDS_MAX: Final = 2.0
FRESH_SECONDS: Final = 0.25
ACCEPT_SECONDS: Final = 0.05
CONVERSATIONS_MAX: Final = 16
REQUEST_SECONDS_MAX: Final = 2.0
CONVERSATION_SECONDS_MAX: Final = 10.0
RETRY_SECONDS: Final = 5.0
STOP_SECONDS_MAX: Final = 0.5
SNAPSHOT_BYTES_MAX: Final = 1 << 20
BACKLOG: Final = 64
UCRED: Final = struct.Struct("3i")  # pid, uid, gid

Converse = Callable[[socket.socket], Awaitable[None]]


class WatchingServer:
    """Answers scrapes until it is stopped.

    Args:
        endpoint: where it listens; None: it answers its siblings only.
        ask: makes the relay's loop work out a snapshot.
        process: the number of this process.
        processes: how many there are; siblings have the same parent.
    """

    def __init__(
        self,
        endpoint: SockAddress | None,
        ask: Callable[[], Future[Snapshot]],
        *,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self._endpoint = endpoint
        self._ask = ask
        self._process = process
        self._siblings = [number for number in range(processes) if number != process]
        self._listens = False
        self._looking: asyncio.Task[Snapshot] | None = None
        self._looked_at = 0.0
        self._facts = ProcessFacts()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Begin to listen; where the port is taken, one line says so and it is tried again."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def stop(self) -> None:
        """End it; blocks for a moment."""
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_SECONDS_MAX)

    def _run(self) -> None:
        assert self._loop is not None
        loop = self._loop
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve())
        finally:
            self._facts.close()

    async def _serve(self) -> None:
        works: list[Callable[[], Awaitable[None]]] = []
        if self._endpoint is not None:
            works.append(partial(self._port_serve, self._endpoint))
        if self._siblings:
            works.append(self._siblings_serve)
        tasks = [asyncio.create_task(_forever(work)) for work in works]
        await self._stopping.wait()
        for task in tasks:
            task.cancel()

    # --- sockets ----------------------------------------------------------------------------------

    async def _port_serve(self, endpoint: SockAddress) -> None:
        listener = await self._port_listen(endpoint)
        self._listens = True
        log("metrics_started", port=endpoint[1])
        try:
            await _accept_forever(listener, self._converse)
        finally:
            self._listens = False

    async def _port_listen(self, endpoint: SockAddress) -> socket.socket:
        tries = 0
        while True:
            try:
                return tcp_listen(endpoint)
            except OSError as error:
                tries += 1
                # One of the siblings has it: perhaps it has only just begun.
                if not await self._sibling_listens() and tries == 1 + bool(self._siblings):
                    reason = error.strerror or type(error).__name__
                    log("metrics_unavailable", level="warning", port=endpoint[1], reason=reason)
                await asyncio.sleep(RETRY_SECONDS)

    async def _siblings_serve(self) -> None:
        await _accept_forever(await self._siblings_listen(), self._tell_sibling)

    async def _siblings_listen(self) -> socket.socket:
        while True:
            try:
                return sibling_listen(self._process)
            except OSError:  # of the one before us, which is just going
                await asyncio.sleep(ACCEPT_SECONDS)

    async def _tell_sibling(self, connection: socket.socket) -> None:
        if is_ours(connection):
            snapshot = await self._look()
            await asyncio.get_running_loop().sock_sendall(connection, snapshot.encode())

    async def _sibling_listens(self) -> bool:
        return any(snapshot.listens for snapshot in await self._look_at_siblings())

    # --- looking ----------------------------------------------------------------------------------

    async def _look(self) -> Snapshot:
        """This process now; who asks meanwhile gets the same answer."""
        now = time.monotonic()
        if self._looking is None or (
            self._looking.done() and now - self._looked_at > FRESH_SECONDS
        ):
            self._looking = asyncio.create_task(self._look_anew())
        return await asyncio.shield(self._looking)

    async def _look_anew(self) -> Snapshot:
        try:
            async with asyncio.timeout(ASK_SECONDS_MAX):
                snapshot = await asyncio.wrap_future(self._ask())
        except (TimeoutError, RuntimeError):  # blocked, or closed already
            reason = f"its event loop has not answered for {ASK_SECONDS_MAX:.0f} seconds"
            snapshot = snapshot_absent(self._process, reason)
        snapshot.values |= self._facts.values()
        snapshot.listens = self._listens
        self._looked_at = time.monotonic()
        return snapshot

    async def _look_at_siblings(self) -> list[Snapshot]:
        return list(await asyncio.gather(*map(sibling_ask, self._siblings)))

    async def _look_everywhere(self) -> list[Snapshot]:
        own, others = await asyncio.gather(self._look(), self._look_at_siblings())
        return sorted([own, *others], key=lambda snapshot: snapshot.process)

    # --- scrapers ---------------------------------------------------------------------------------

    async def _converse(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        received = b""
        async with asyncio.timeout(REQUEST_SECONDS_MAX):
            while b"\r\n\r\n" not in received and len(received) <= REQUEST_BYTES_MAX:
                part = await loop.sock_recv(connection, REQUEST_BYTES_MAX)
                if not part:
                    return
                received += part
        response = await self._respond(request_parse(received))
        await loop.sock_sendall(connection, response.encode())

    async def _respond(self, request: Request | None) -> Response:
        if request is None:
            return Response(400, "text/plain", b"that is no request\n")
        if request.path not in ("/metrics", "/health"):
            return Response(404, "text/plain", b"there are /metrics and /health\n")
        if request.method not in ("GET", "HEAD"):
            return Response(405, "text/plain", b"GET or HEAD\n", allow="GET, HEAD")
        snapshots = await self._look_everywhere()
        if request.path == "/health":
            healthy, body = health_text(snapshots)
            status, content_type = (200 if healthy else 503), "application/json"
        else:
            content_type, body = metrics_text(snapshots, request.accept)
            status = 200
        return Response(status, content_type, body, is_head=request.method == "HEAD")


async def _forever(work: Callable[[], Awaitable[None]]) -> None:
    """Do it again whenever a fault ends it."""
    while True:
        try:
            await work()
        except Exception as error:
            log("fault", level="error", source="watching", **fault_facts(error))
        await asyncio.sleep(RETRY_SECONDS)


class SpareDescriptor:
    """One that is kept for when no other is left: just then somebody should see why."""

    def __init__(self) -> None:
        self._spare: int | None = None
        self.take()

    def take(self) -> None:
        """Have one, if there is one."""
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Leave it to whoever asks for one next."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


async def _accept(listener: socket.socket, spare: SpareDescriptor) -> socket.socket:
    """Wait for a connection.

    Raises:
        OSError: it has gone again, or there is no descriptor for it.
    """
    spare.take()
    try:
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or not is_readable(listener):
            raise
        spare.close()
        connection, _ = listener.accept()
    connection.setblocking(False)
    return connection


async def _accept_forever(listener: socket.socket, converse: Converse) -> None:
    """Talk to whoever connects: so many a second, so many at once, so long."""
    spare = SpareDescriptor()
    room = asyncio.Semaphore(CONVERSATIONS_MAX)
    conversations: set[asyncio.Task[None]] = set()

    async def hold(connection: socket.socket) -> None:
        try:
            with connection:
                async with asyncio.timeout(CONVERSATION_SECONDS_MAX):
                    await converse(connection)
        except (TimeoutError, OSError):
            pass
        except Exception as error:
            log("fault", level="error", source="watching", **fault_facts(error))
        finally:
            room.release()

    with listener, contextlib.closing(spare):
        while True:
            await room.acquire()
            try:
                connection = await _accept(listener, spare)
            except OSError:
                room.release()
            else:
                task = asyncio.create_task(hold(connection))
                conversations.add(task)
                task.add_done_callback(conversations.discard)
            await asyncio.sleep(ACCEPT_SECONDS)


def is_readable(listener: socket.socket) -> bool:
    """Whether somebody waits to be accepted."""
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    return bool(waiting.poll(0))


def tcp_listen(endpoint: SockAddress) -> socket.socket:
    """A socket that scrapers connect to.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(endpoint)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def sibling_name(process: int) -> str:
    """The abstract address of one of the processes that our parent has started."""
    return f"\0mindmore-relay-{os.getppid()}-{process}"


def sibling_listen(process: int) -> socket.socket:
    """A socket that siblings connect to.

    Raises:
        OSError: somebody has the name.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(sibling_name(process))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def is_ours(connection: socket.socket) -> bool:
    """Whether the other end is a process of the same user."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    return bool(UCRED.unpack(credentials)[1] == os.getuid())


async def sibling_ask(process: int) -> Snapshot:
    """What a sibling says of itself, or that it says nothing."""
    loop = asyncio.get_running_loop()
    encoded = bytearray()
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    try:
        with socket.socket(socket.AF_UNIX, kind) as connection:
            async with asyncio.timeout(ASK_SECONDS_MAX + 1):
                await loop.sock_connect(connection, sibling_name(process))
                while is_ours(connection) and len(encoded) <= SNAPSHOT_BYTES_MAX:
                    part = await loop.sock_recv(connection, 65536)
                    if not part:
                        break
                    encoded += part
        return snapshot_decode(bytes(encoded))
    except (OSError, TimeoutError, ValueError):  # no descriptor is left, or nobody there
        return snapshot_absent(process, "the process does not answer")
