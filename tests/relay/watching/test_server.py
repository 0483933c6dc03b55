"""The endpoint: health, slow and hostile scrapers, a taken port, several processes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from relay.config import ClientLimits
from relay.watching import server as watching_server
from relay.watching.metrics import METRICS
from relay.watching.server import CONVERSATIONS_MAX, WatchingServer, sibling_ask
from relay.watching.snapshot import Snapshot
from tests.ports import free_port
from tests.relay.interop.servers import HOST
from tests.relay.transports.rig import RunningRelay
from tests.relay.transports.rig import relay_config as rig_config
from tests.relay.transports.rig import until as until_true
from tests.relay.watching.conftest import StartRelay
from tests.relay.watching.scrape import Scrape, Watched, http_get, until


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[tuple[RunningRelay, int]]:
    """A relay in a thread of this process, and its metrics' port."""
    port = free_port()
    config = rig_config(tmp_path, None, ClientLimits(), ())
    relay = RunningRelay(replace(config, metrics=(HOST, port)))
    relay.thread.start()
    assert relay.ready.wait(5)
    assert until_true(lambda: answers(port))
    try:
        yield relay, port
    finally:
        relay.stop()


def answers(port: int) -> bool:
    try:
        return http_get(port, "/health").status > 0
    except OSError:
        return False


def health(port: int) -> tuple[int, list[str]]:
    answer = http_get(port, "/health")
    found = json.loads(answer.body)
    assert answer.headers["Content-Type"] == "application/json"
    assert (found["status"] == "ok") == (answer.status == 200)
    return answer.status, [each["reason"] for each in found["reasons"]]


# --- health ---------------------------------------------------------------------------------------


def test_relay_that_can_serve_is_healthy(inside: tuple[RunningRelay, int]) -> None:
    _, port = inside
    assert health(port) == (200, [])
    assert http_get(port, "/health", "HEAD").body == b""


def test_relay_that_drains_or_is_cut_off_takes_no_new_calls(
    inside: tuple[RunningRelay, int],
) -> None:
    relay, port = inside
    control = relay.runner._turn.control
    relay.ask(lambda runner: control.drain(None, runner._clock.steady()))
    assert until_true(lambda: health(port) == (503, ["it is draining"]))
    assert (scrape(port)("draining"), scrape(port)("cut_off")) == (1, 0)
    relay.ask(lambda _: control.undrain())
    assert until_true(lambda: health(port) == (200, []))
    relay.ask(lambda runner: runner.receiver.cut_off_set(True))
    cut_off = ["it is cut off from its control channel"]
    assert until_true(lambda: health(port) == (503, cut_off))
    assert (scrape(port)("draining"), scrape(port)("cut_off")) == (0, 1)
    relay.ask(lambda runner: runner.receiver.cut_off_set(False))
    assert until_true(lambda: health(port) == (200, []))


def test_relay_whose_journal_fails_is_not_healthy_until_it_is_written(
    inside: tuple[RunningRelay, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, port = inside
    with monkeypatch.context() as broken:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        broken.setattr(os, "utime", full)
        relay.ask(lambda runner: asyncio.get_running_loop().call_soon(runner._journal.flush))
        assert until_true(lambda: health(port)[0] == 503)
        assert health(port)[1] == ["the usage journal cannot be written"]
        assert scrape(port)("journal_writable") == 0
    relay.ask(lambda runner: asyncio.get_running_loop().call_soon(runner._journal.flush))
    assert until_true(lambda: health(port) == (200, []))


def test_relay_whose_loop_does_not_answer_is_not_healthy_until_it_does(
    inside: tuple[RunningRelay, int],
) -> None:
    relay, port = inside
    go_on = threading.Event()
    relay.loop.call_soon_threadsafe(go_on.wait, 30)
    begun = time.monotonic()
    try:
        assert until_true(lambda: health(port)[0] == 503, 20)
        assert time.monotonic() - begun < 15
        (reason,) = health(port)[1]
        assert "event loop" in reason
        silent = scrape(port)
        assert silent("up") == 0
        assert silent("process_resident_memory_bytes") > 0
    finally:
        go_on.set()
    assert until_true(lambda: health(port) == (200, []))
    now = scrape(port)
    assert now("event_loop_longest_block_seconds") > 1
    assert now("event_loop_blocks_total") >= 1


def scrape(port: int) -> Scrape:
    return Scrape(http_get(port, "/metrics").body.decode())


# --- who scrapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/metrics/../health", "GET", 404),
        ("/metrics", "POST", 405),
        ("/metrics?x=1", "GET", 200),
    ],
)
def test_other_questions_get_short_answers(
    inside: tuple[RunningRelay, int], path: str, method: str, status: int
) -> None:
    answer = http_get(inside[1], path, method)
    assert answer.status == status
    assert len(answer.body) < 100 or status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [b"\x16\x03\x01 TLS\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 9000],
)
def test_what_is_no_request_gets_400(
    inside: tuple[RunningRelay, int], request_bytes: bytes
) -> None:
    with socket.create_connection((HOST, inside[1]), timeout=5) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_hostile_scrapers_hold_up_neither_calls_nor_each_other_for_long(relay: Watched) -> None:
    """Some send a byte at a time, some never read, some ask again and again."""
    endpoint = HOST, relay.port
    before = relay.scrape()
    with ExitStack() as stack, relay.client("udp") as client:
        peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        peer.bind((HOST, 0))
        peer.settimeout(5)
        client.allocate()
        client.bind(0x4000, peer.getsockname())
        silent = [
            stack.enter_context(socket.create_connection(endpoint, timeout=5))
            for _ in range(2 * CONVERSATIONS_MAX)
        ]
        for number, connection in enumerate(silent):
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n"[: number % 26])
        for number in range(200):
            client.send_channel(0x4000, b"data %d" % number)
            assert peer.recv(100) == b"data %d" % number
        answer = relay.get("/metrics")  # a late one is answered all the same
        assert answer.status == 200
    now = relay.until(lambda now: now("relayed_packets_total", direction="from_client") == 200)
    assert now("process_open_fds") < before("process_open_fds") + CONVERSATIONS_MAX + 8
    grown = now("process_resident_memory_bytes") - before("process_resident_memory_bytes")
    assert grown < 10_000_000


def test_those_who_ask_again_and_again_take_a_bounded_part_of_the_processor(
    relay: Watched,
) -> None:
    end = time.monotonic() + 4
    asked = 0

    def ask() -> None:
        nonlocal asked
        while time.monotonic() < end:
            try:
                relay.get("/metrics")
                asked += 1
            except OSError:
                pass

    before = relay.scrape()
    begun = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    after = relay.scrape()
    assert 0 < asked <= 20 * seconds + 2
    spent = after("process_cpu_seconds_total") - before("process_cpu_seconds_total")
    assert spent < 0.25 * seconds  # measured: 0.07


# --- when something is missing --------------------------------------------------------------------


def test_relay_without_a_descriptor_left_says_so(relay: Watched) -> None:
    pid = relay.server.process.pid
    files = Path(f"/proc/{pid}/fd")
    numbers = [int(each.name) for each in files.iterdir()]
    most = min(set(range(len(numbers) + 1)) - set(numbers))  # there is none below
    assert relay.scrape()("process_max_fds") > most
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
    for _ in range(3):
        # What it said just before the limit was lowered is kept for a moment.
        found = relay.until(lambda now: now("process_max_fds") == most)
        assert found("process_open_fds") >= most
        assert found("process_resident_memory_bytes") > 0
        assert relay.get("/health").status in (200, 503)  # its journal may miss one too
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert relay.scrape()("up") == 1


def test_sibling_is_absent_where_no_descriptor_is_left_to_ask_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def ask() -> Snapshot:
        with monkeypatch.context() as without:
            without.setattr(socket, "socket", none_left)
            return await sibling_ask(1)

    assert asyncio.run(ask()).unwell == ["the process does not answer"]


def test_fault_ends_no_endpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching_server, "RETRY_SECONDS", 0.05)
    port, listen = free_port(), watching_server.tcp_listen
    faults = [RuntimeError("a mistake"), OSError(errno.EADDRINUSE, "in use")]

    def fail_first(endpoint: tuple[str, int]) -> socket.socket:
        if faults:
            raise faults.pop()
        return listen(endpoint)

    monkeypatch.setattr(watching_server, "tcp_listen", fail_first)
    with processes_running(1, port):
        assert until_true(lambda: answers(port))
        assert scrape(port)("up") == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    faulty = [line for line in lines if line["event"] == "fault"]
    assert [(line["source"], line["error"]) for line in faulty] == [("watching", "RuntimeError")]


# --- the port -------------------------------------------------------------------------------------


def test_taken_port_is_one_line_and_is_taken_over(
    relay_start: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = relay_start("first")
    second = relay_start("second", METRICS_PORT=first.port)
    assert first.scrape()("up") == 1
    with second.client("udp") as client:  # it relays all the same
        client.allocate()
    assert first.scrape()("allocations_started_total") == 0
    first.server.stop()
    found = until(lambda: scrape_or_nothing(second), lambda now: bool(now.values))
    assert found("allocations_started_total") == 1
    events = [line["event"] for line in second.events()]
    assert events.count("metrics_unavailable") == 1
    assert events.index("metrics_unavailable") < events.index("metrics_started")
    [line] = [line for line in second.events() if line["event"] == "metrics_unavailable"]
    assert line["port"] == first.port
    assert "in use" in line["reason"]


def scrape_or_nothing(relay: Watched) -> Scrape:
    try:
        return relay.scrape()
    except OSError:
        return Scrape("")


def test_port_0_switches_it_off(relay_start: StartRelay) -> None:
    relay = relay_start(METRICS_PORT=0)
    with relay.client("udp") as client:
        client.allocate()
    relay.server.stop()
    events = [line["event"] for line in relay.events()]
    assert "relay_started" in events
    assert not [event for event in events if event.startswith("metrics")]


# --- several processes ----------------------------------------------------------------------------


def snapshot_of(process: int) -> Snapshot:
    found = Snapshot(process)
    found.set("up", 1)
    found.set("allocations", 10 + process, "udp", "ipv4")
    found.set("allocations_started_total", 100 + process, "udp", "ipv4")
    return found


@contextmanager
def processes_running(count: int, port: int) -> Iterator[list[WatchingServer]]:
    """As many servers as if each were a process of one relay: they have one parent."""

    def ask(process: int) -> Callable[[], Future[Snapshot]]:
        def answer() -> Future[Snapshot]:
            future: Future[Snapshot] = Future()
            future.set_result(snapshot_of(process))
            return future

        return answer

    running = [
        WatchingServer((HOST, port), ask(number), process=number, processes=count)
        for number in range(count)
    ]
    for each in running:
        each.start()
    try:
        yield running
    finally:
        for each in running:
            each.stop()


def test_one_scrape_shows_all_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching_server, "RETRY_SECONDS", 1.0)
    port = free_port()
    names = {metric.name for metric in METRICS}
    with processes_running(3, port) as running:
        assert until_true(lambda: answers(port))
        now = until(lambda: scrape(port), lambda now: now("up") == 3)
        for number in range(3):
            process = {"process": str(number)}
            assert now("allocations", **process) == 10 + number
            assert now("allocations_started_total", **process) == 100 + number
            assert now("process_resident_memory_bytes", **process) > 0
        assert set(now.kinds) == names
        assert health(port) == (200, [])
        # The one that has the port ends: another takes it, and says that one is missing.
        [first] = [each for each in running if each._listens]
        first.stop()
        gone = str(first._process)
        assert until_true(lambda: answers(port))
        later = until(lambda: scrape(port), lambda now: now("up", process=gone) == 0)
        assert later("up") == 2
        status, reasons = health(port)
        assert (status, reasons) == (503, ["the process does not answer"])
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert "metrics_unavailable" not in events
    assert events.count("metrics_started") == 2


def test_processes_say_once_that_somebody_else_has_their_port(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching_server, "RETRY_SECONDS", 0.1)
    with socket.create_server((HOST, 0)) as other, processes_running(1, other.getsockname()[1]):
        said: list[str] = []

        def is_said() -> bool:
            said.extend(capsys.readouterr().err.splitlines())
            return bool(said)

        assert until_true(is_said)
        time.sleep(0.5)
        said.extend(capsys.readouterr().err.splitlines())
    assert [json.loads(line)["event"] for line in said] == ["metrics_unavailable"]
