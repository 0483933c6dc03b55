"""Clients that are slow, half open, many, deaf, or no clients at all."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from relay.config import ClientLimits
from tests.certificates import Files
from tests.relay.transports.rig import HOSTS, RunningRelay, relay_running, until
from tests.stream_client import tls_context
from tests.turn_client import PAIR, Kind, Method, message_encode

CHANNEL = 0x4001
PAGE_KILOBYTES = resource.getpagesize() // 1024
LIMITS = ClientLimits(
    connections_max=120,
    strangers_max=100,
    strangers_per_address_max=80,
    first_message_seconds=2.0,
    idle_seconds=2.0,
)
SOON_SECONDS = 30.0  # the limit, a sweep, and much patience


@pytest.fixture
def strict(tmp_path: Path, certificate: Files) -> Iterator[RunningRelay]:
    """A relay that has little patience and room."""
    with relay_running(tmp_path, certificate, limits=LIMITS) as running:
        yield running


@pytest.fixture
def small(tmp_path: Path, certificate: Files) -> Iterator[RunningRelay]:
    """A relay that has little room, and more patience than any test."""
    limits = replace(LIMITS, first_message_seconds=600.0, idle_seconds=600.0)
    with relay_running(tmp_path, certificate, limits=limits) as running:
        yield running


def is_closed(connection: socket.socket, seconds: float = SOON_SECONDS) -> bool:
    """Whether the relay closes a connection in time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def rss_kilobytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KILOBYTES


def test_connection_that_says_nothing_is_closed(strict: RunningRelay) -> None:
    with strict.connect() as connection:
        assert is_closed(connection)
        assert strict.connections() == 0


@pytest.mark.parametrize("start", [b"\x00\x01\x00\x08!\x12\xa4B", b"\x16\x03\x01\x02\x00\x01"])
def test_client_of_a_byte_at_a_time_is_closed(strict: RunningRelay, start: bytes) -> None:
    with strict.connect() as connection:
        connection.sendall(start)
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < SOON_SECONDS:
                connection.sendall(b"\0")
                time.sleep(0.2)
        except OSError:
            pass
        else:
            pytest.fail("it may go on")
        assert strict.connections() == 0


def test_tls_that_is_never_finished_is_closed(strict: RunningRelay) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls_context().wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with strict.connect() as connection:
        connection.sendall(outgoing.read())
        assert is_closed(connection)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_connection_without_an_allocation_is_closed_when_idle(
    strict: RunningRelay, transport: str
) -> None:
    with strict.client(transport) as client:
        for _ in range(5):  # longer than the time for the first message, and not idle
            client.binding()
            time.sleep(0.5)
        assert is_closed(client.socket)


@pytest.mark.parametrize("transport", ["tcp", "tls", "dtls"])
def test_client_with_an_allocation_may_be_silent(strict: RunningRelay, transport: str) -> None:
    with strict.client(transport) as client:
        client.allocate()
        time.sleep(LIMITS.first_message_seconds + LIMITS.idle_seconds + 1.5)  # and a sweep
        assert client.refresh(600) == 600
        client.refresh(0)
        if transport != "dtls":
            assert is_closed(client.socket)
        assert until(lambda: strict.connections() + strict.sessions() == 0, SOON_SECONDS)


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: turn.test\r\n\r\n",
        b"\x00\x01\x00\x00junkjunkjunkjunk",
        b"\x80" * 100,
        b"\x16\x03\x01\x00\x05junk, and no hello",
        b"\x40\x00\xff\xff" + bytes(5000),
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
        b"\x00",
    ],
    ids=["http", "no cookie", "rtp", "broken tls", "too long", "proxy from anyone", "a byte"],
)
def test_junk_closes_its_connection_and_nothing_else(strict: RunningRelay, junk: bytes) -> None:
    with strict.client("tcp") as client, strict.connect() as connection:
        client.allocate()
        connection.sendall(junk)
        assert is_closed(connection)
        client.refresh(600)


def test_flood_of_half_open_connections_makes_room_for_a_client(small: RunningRelay) -> None:
    before = rss_kilobytes()
    with ExitStack() as stack:
        for number in range(300):
            origin = f"127.0.{number // 60}.7", 0
            server = HOSTS[4], small.config.listen_port
            stack.enter_context(socket.create_connection(server, 5, source_address=origin))
        assert until(lambda: small.dropped("too many clients") >= 200)
        assert small.connections() <= LIMITS.strangers_max
        assert rss_kilobytes() - before < 10_000
        with small.client("tls") as client:
            client.allocate()
            assert client.refresh(600) == 600
            assert small.connections() == LIMITS.strangers_max


def test_half_open_connections_are_swept_and_the_client_stays(strict: RunningRelay) -> None:
    with ExitStack() as stack, strict.client("tls") as client:
        client.allocate()
        for _ in range(50):
            stack.enter_context(strict.connect())
        assert until(lambda: strict.connections() == 1, SOON_SECONDS)
        assert client.refresh(600) == 600


def test_one_address_may_have_so_many_half_open_connections(small: RunningRelay) -> None:
    most = LIMITS.strangers_per_address_max
    with ExitStack() as stack:
        flood = [stack.enter_context(small.connect()) for _ in range(most + 20)]
        assert until(lambda: small.dropped("too many clients") == 20)
        assert small.connections() == most
        assert all(is_closed(late) for late in flood[most:])


def test_connections_are_bounded_in_all(small: RunningRelay) -> None:
    with ExitStack() as stack:
        for _ in range(LIMITS.connections_max):
            stack.enter_context(small.client("tcp")).allocate()
        assert small.connections() == LIMITS.connections_max
        assert is_closed(stack.enter_context(small.connect()))
        assert small.allocations() == LIMITS.connections_max


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_client_that_does_not_read_loses_data_and_costs_no_memory(
    small: RunningRelay, transport: str
) -> None:
    with (
        small.client(transport) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind((HOSTS[4], 0))
        relayed = client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        before = rss_kilobytes()
        for number in range(20_000):
            peer.sendto(bytes(1200), relayed)
            if number % 100 == 0:
                time.sleep(0.002)
        peer_received = -1
        while peer_received != small.counters()[2]:  # the relay has taken in what there is
            peer_received = small.counters()[2]
            time.sleep(0.2)
        assert small.dropped("client too slow") > 1000
        assert rss_kilobytes() - before < 4_000
        # It still gets answers, and data again, once it reads.
        assert client.refresh(600) == 600
        assert {len(data) for _, data in client.inbox} == {1200}
        client.inbox.clear()
        peer.sendto(b"again", relayed)
        assert client.receive() == (CHANNEL, b"again")
        _, client_sent, _, _ = small.counters()
        assert client_sent == sum(client.received[1:])


def test_client_that_asks_and_never_reads_costs_no_memory(small: RunningRelay) -> None:
    request = message_encode(Method.BINDING, Kind.REQUEST)
    before = rss_kilobytes()
    with small.connect() as connection:
        connection.settimeout(1)
        try:
            for _ in range(2000):
                connection.sendall(request * 100)
        except TimeoutError:
            pass
        assert rss_kilobytes() - before < 4_000


def test_stranger_may_not_send_long_messages(small: RunningRelay) -> None:
    with small.connect() as connection:
        connection.sendall(PAIR.pack(CHANNEL, LIMITS.stranger_message_bytes_max))
        assert is_closed(connection)


def test_event_loop_answers_while_many_shake_hands(small: RunningRelay) -> None:
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        tls_context().wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    first = hello.read()

    def seconds() -> float:
        with ExitStack() as stack, small.client("udp") as client:
            for _ in range(LIMITS.strangers_per_address_max // 2):
                stack.enter_context(small.connect()).sendall(first)
            begun = time.monotonic()
            client.binding()
            return time.monotonic() - begun

    assert any(seconds() < 0.25 for _ in range(20))  # a busy machine has its moments
