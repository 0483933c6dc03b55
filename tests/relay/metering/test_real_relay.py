"""A real relay: its counters are what the client sent and received, to the byte, killed or not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.utils import timezone

from accounts.models import Organisation, Project
from relay.metering.journal import boot_directories, segment_lines
from relay.metering.records import Record, UsageRecord, record_decode
from relay.models import AuthenticationEvent, PeerFlow, QuarantinedRecord, Session, SessionMove
from relay.models import UsageRecord as UsageRow
from relay.services.shipping import journal_ship
from tests.relay.interop.servers import HOST, PROJECT, Server, server_running
from tests.turn_client import Attribute, Method, TurnClient, allocate_attributes

PATIENCE_SECONDS = 60
CHANNEL = 0x4001
DATA = b"x" * 1000


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Server]:
    with server_running("mindmore", tmp_path) as running:
        yield running


@pytest.fixture
def called(organisation: Organisation) -> Project:
    """The project in whose name the tests' credentials are minted."""
    return Project.objects.create(organisation=organisation, name="Calls", public_id=PROJECT)


@contextmanager
def udp_peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((HOST, 0))
        peer.settimeout(30)
        yield peer


def records(relay: Server) -> list[Record]:
    return [
        record_decode(line)
        for boot in boot_directories(relay.home / "journal")
        for segment in boot.segments()
        for line in segment_lines(segment)
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ping_pong(client: TurnClient, peer: socket.socket, times: int) -> None:
    """Data both ways over a channel, none of it lost."""
    for _ in range(times):
        client.send_channel(CHANNEL, DATA)
        _, relayed = peer.recvfrom(2048)
        peer.sendto(DATA, relayed)
        client.receive()


def test_counters_are_what_the_client_counted(relay: Server) -> None:
    with relay.client() as client, udp_peer() as peer:
        address = peer.getsockname()
        client.binding()  # before anybody proved who he is: not metered
        unmetered = len(client.sent), len(client.received)
        client.allocate()
        client.permit(address)
        for size in (0, 1, 3, 500):  # as indications
            client.send(address, b"i" * size)
            data, relayed = peer.recvfrom(2048)
            peer.sendto(data + b"!", relayed)
            client.receive()
        client.bind(CHANNEL, address)
        ping_pong(client, peer, 20)
        client.refresh(0)
        # The first Allocate and its 401 came before the client proved who it is, too.
        sent = sum(client.sent[unmetered[0] + 1 :])
        received = sum(client.received[unmetered[1] + 1 :])
    relay.stop()
    usage = [record for record in records(relay) if isinstance(record, UsageRecord)]
    last = usage[-1]
    assert last.ended
    assert last.client_received_total == sent
    assert last.client_sent_total == received
    assert last.peer_sent_total == 504 + 20 * len(DATA)
    assert last.peer_received_total == 504 + 4 + 20 * len(DATA)
    assert sum(record.client_sent for record in usage) == received
    assert [peer for record in usage for peer in record.peers] == [address]


@pytest.mark.django_db(transaction=True)
def test_killed_relay_loses_at_most_one_flush_interval(relay: Server, called: Project) -> None:
    journal = relay.home / "journal"
    with relay.client() as client, udp_peer() as peer:
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        ping_pong(client, peer, 50)
        flushed = 50 * (len(DATA) + 4)
        # A flush may fall into the middle of it: the next one counts.
        wait_until(
            lambda: any(
                isinstance(record, UsageRecord) and record.client_sent_total >= flushed
                for record in records(relay)
            )
        )
        journal_ship(directory=journal, now=timezone.now())
        assert Session.objects.get().ended_at is None
        ping_pong(client, peer, 5)
        relay.process.kill()
        relay.process.wait()
        relayed = sum(client.received)
    assert journal_ship(directory=journal, now=timezone.now()).sessions_closed == 1
    assert list(journal.iterdir()) == []
    session = Session.objects.get()
    assert session.project == called
    assert session.ended_at is not None
    assert session.started_at <= session.ended_at <= timezone.now()
    assert flushed <= session.client_sent_bytes <= relayed
    assert sum(UsageRow.objects.values_list("client_sent_bytes", flat=True)) == (
        session.client_sent_bytes
    )
    assert PeerFlow.objects.count() == 1
    assert AuthenticationEvent.objects.get().outcome == "accepted"
    assert not QuarantinedRecord.objects.exists()


@pytest.mark.claim("S-11")
@pytest.mark.django_db(transaction=True)
def test_addresses_of_a_client_that_moves_are_logged_with_its_session(
    relay: Server, called: Project
) -> None:
    with relay.client() as home, relay.client() as away, udp_peer() as peer:
        ticket = Attribute.MOBILITY_TICKET
        answer = home.request(Method.ALLOCATE, [*allocate_attributes(), (ticket, b"")])
        home.bind(CHANNEL, peer.getsockname())
        away.username, away.password = home.username, home.password
        away.request(Method.REFRESH, [(ticket, answer.attributes[ticket])])
        ping_pong(away, peer, 3)
        addresses = [client.socket.getsockname() for client in (home, away)]
        relay.stop()
    assert journal_ship(directory=relay.home / "journal", now=timezone.now()).sessions_closed == 0
    session, move = Session.objects.get(), SessionMove.objects.get()
    found = [(row.client_address, row.client_port) for row in (session, move)]
    assert found == addresses
    assert session.ended_at is not None
    assert session.started_at <= move.moved_at <= session.ended_at
    assert move.session_started_at == session.started_at
    assert (move.node, move.boot, move.allocation) == (
        session.node,
        session.boot,
        session.allocation,
    )
    assert not QuarantinedRecord.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_restarted_relay_counts_from_nothing(tmp_path: Path, called: Project) -> None:
    for _ in range(2):
        with (
            server_running("mindmore", tmp_path) as relay,
            relay.client() as client,
            udp_peer() as peer,
        ):
            client.allocate()
            client.bind(CHANNEL, peer.getsockname())
            ping_pong(client, peer, 3)
            relay.stop()
    journal_ship(directory=tmp_path / "journal", now=timezone.now())
    first, second = Session.objects.order_by("started_at")
    assert first.boot != second.boot
    assert first.client_sent_bytes == second.client_sent_bytes > 0
    assert not Session.objects.filter(ended_at=None).exists()
