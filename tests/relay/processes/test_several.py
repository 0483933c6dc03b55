"""`manage.py runrelay` with several processes: calls, quotas, tokens, deaths, and the books."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from django.utils import timezone

from accounts.models import Organisation, Project
from relay.metering.journal import boot_directories
from relay.models import QuarantinedRecord, Session
from relay.models import UsageRecord as UsageRow
from relay.services.shipping import journal_ship
from tests.relay.interop.servers import HOST, PROJECT, Server, server_running
from tests.stack import wait_until_gone
from tests.stream_client import StreamClient
from tests.turn_client import (
    UDP_PROTOCOL,
    Address,
    Attribute,
    Method,
    TurnClient,
    TurnError,
)

PROCESSES = 3
PORTS_EACH = 1000
PORT_MIN = 40000
QUOTA = 20
CHANNEL = 0x4001
PATIENCE_SECONDS = 30.0
TCP = (Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")
SEVERAL = {
    "MINDMORE_TURN_PROCESSES": str(PROCESSES),
    "MINDMORE_TURN_MOBILITY": "off",
    "MINDMORE_TURN_RELAY_ADDRESS": HOST,
    "MINDMORE_TURN_RELAY_PORTS": f"{PORT_MIN}-{PORT_MIN + PROCESSES * PORTS_EACH - 1}",
}


class Several:
    """A relay of several processes, and clients of many networks."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server = server
        self.stack = stack
        self.credential = server.credential()

    def client(self, network: int, host: int = 1, port: int = 0) -> TurnClient:
        """A client over UDP; each network is a /24."""
        local = f"127.1.{network}.{host}", port
        return self.stack.enter_context(
            TurnClient(self.server.address, *self.credential, local=local, timeout_seconds=5)
        )

    def stream(self, network: int, host: int = 1) -> StreamClient:
        """A client over TCP."""
        local = f"127.1.{network}.{host}", 0
        made = StreamClient(self.server.address, *self.credential, local=local)
        self.stack.enter_context(made.socket)
        return made

    def peer(self) -> socket.socket:
        made = self.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.bind((HOST, 0))
        made.settimeout(5)
        return made

    def networks(self) -> list[int]:
        """A network of each process."""
        found: dict[int, int] = {}
        for network in range(200):
            client = self.client(network)
            found.setdefault(process_of(client.allocate()), network)
            client.refresh(0)
            if len(found) == PROCESSES:
                return [found[process] for process in range(PROCESSES)]
        raise AssertionError(f"networks came to {sorted(found)} only")

    def pids(self) -> dict[int, int]:
        """By number, the pid of every process that serves."""
        lines = (self.server.home / "output").read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return {
            event["process"]: event["pid"] for event in events if event["event"] == "relay_started"
        }

    def kill(self, process: int) -> None:
        """kill -9 one of them, and wait for the next one."""
        before = self.pids()[process]
        os.kill(before, signal.SIGKILL)
        until(lambda: self.pids()[process] != before)


def process_of(relayed: Address) -> int:
    """Whose part of the relayed ports an address is in."""
    return (relayed[1] - PORT_MIN) // PORTS_EACH


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def several_running(home: Path, **changes: str) -> Iterator[Several]:
    with server_running("mindmore", home, {**SEVERAL, **changes}) as server, ExitStack() as stack:
        several = Several(server, stack)
        until(lambda: len(several.pids()) == PROCESSES)
        yield several


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Several]:
    with several_running(tmp_path) as running:
        yield running


def ping_pong(client: TurnClient, peer: socket.socket, times: int = 1) -> None:
    """Data both ways over a channel, none of it lost."""
    for turn in range(times):
        data = f"{turn}".encode() * 100
        client.send_channel(CHANNEL, data)
        arrived, relayed = peer.recvfrom(2048)
        assert arrived == data
        peer.sendto(data, relayed)
        assert client.receive() == (CHANNEL, data)


def test_calls_of_every_network_and_between_processes(relay: Several) -> None:
    networks = relay.networks()
    clients = [relay.client(network) for network in networks]
    relayed = [client.allocate() for client in clients]
    assert [process_of(address) for address in relayed] == list(range(PROCESSES))
    for client in clients:
        peer = relay.peer()
        client.bind(CHANNEL, peer.getsockname())
        ping_pong(client, peer, 20)
    for turn, (client, address) in enumerate(zip(clients, relayed, strict=True)):
        other, other_address = clients[turn - 1], relayed[turn - 1]
        client.bind(CHANNEL + 1, other_address)
        other.permit(address)
        client.send_channel(CHANNEL + 1, b"through both")
        assert other.receive() == (address, b"through both")


def test_call_lives_on_when_another_process_is_killed(relay: Several) -> None:
    networks = relay.networks()
    lives, dies = relay.client(networks[0]), relay.client(networks[1])
    streams = relay.stream(networks[2])
    peers = [relay.peer() for _ in range(3)]
    for client, peer in zip((lives, dies, streams), peers, strict=True):
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        ping_pong(client, peer)
    others = {process: pid for process, pid in relay.pids().items() if process != 1}
    before = relay.pids()[1]
    os.kill(before, signal.SIGKILL)
    for _ in range(20):  # while it is dead, and while the next one starts
        ping_pong(lives, peers[0])
        ping_pong(streams, peers[2])
        time.sleep(0.02)
    until(lambda: relay.pids()[1] != before)
    ping_pong(lives, peers[0], 20)
    ping_pong(streams, peers[2], 20)
    # The next one has the sockets: the same client begins anew, with the nonce that it has.
    nonce = dies.nonce
    assert process_of(dies.allocate()) == 1
    assert dies.nonce == nonce
    dies.bind(CHANNEL, peers[1].getsockname())
    ping_pong(dies, peers[1], 20)
    over_tcp = relay.stream(networks[1])
    assert process_of(over_tcp.allocate()) == 1
    assert {process: relay.pids()[process] for process in others} == others


def test_connection_and_datagram_wait_for_the_next_process(relay: Several) -> None:
    network = relay.networks()[1]
    before = relay.pids()[1]
    client = relay.client(network)
    client.allocate()
    client.refresh(0)
    os.kill(before, signal.SIGKILL)
    psutil_wait(before)
    # Nobody reads its sockets now; they are there, and what comes is kept.
    over_tcp = relay.stream(network)
    assert process_of(over_tcp.allocate()) == 1
    assert process_of(client.allocate()) == 1


def psutil_wait(pid: int) -> None:
    try:
        assert wait_until_gone([psutil.Process(pid)], PATIENCE_SECONDS) == []
    except psutil.NoSuchProcess:
        pass


def test_reservation_and_data_connection_are_found_from_the_same_network(relay: Several) -> None:
    for network in relay.networks():
        first, second = relay.client(network, 1), relay.client(network, 200)
        even = [(Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL), (Attribute.EVEN_PORT, b"\x80")]
        answer = first.request(Method.ALLOCATE, even)
        token = answer.attributes[Attribute.RESERVATION_TOKEN]
        host, port = answer.address(Attribute.XOR_RELAYED_ADDRESS)
        reserved = [
            (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL),
            (Attribute.RESERVATION_TOKEN, token),
        ]
        answer = second.request(Method.ALLOCATE, reserved)
        assert answer.address(Attribute.XOR_RELAYED_ADDRESS) == (host, port + 1)

        control, data = relay.stream(network, 1), relay.stream(network, 200)
        control.request(Method.ALLOCATE, [TCP])
        with socket.create_server((HOST, 0)) as listener:
            listener.settimeout(5)
            wanted = [(Attribute.XOR_PEER_ADDRESS, listener.getsockname())]
            answer = control.request(Method.CONNECT, wanted)
            accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(5)
            connection = answer.attributes[Attribute.CONNECTION_ID]
            data.request(Method.CONNECTION_BIND, [(Attribute.CONNECTION_ID, connection)])
            data.socket.sendall(b"to the peer")
            assert accepted.recv(100) == b"to the peer"
            accepted.sendall(b"to the client")
            assert data.socket.recv(100) == b"to the client"


def test_quota_is_exact_over_all_processes_and_a_killed_one_gives_its_share_back(
    tmp_path: Path,
) -> None:
    with several_running(tmp_path, MINDMORE_TURN_PROJECT_ALLOCATIONS_MAX=str(QUOTA)) as relay:
        clients = [relay.client(network) for network in range(100)]

        def allocate(client: TurnClient) -> int | None:
            """The process that let it in; None where the quota kept it out."""
            try:
                return process_of(client.allocate())
            except TurnError as error:
                assert error.code == 486
                return None

        def allocate_all() -> list[tuple[TurnClient, int]]:
            with ThreadPoolExecutor(len(clients)) as threads:
                let_in = threads.map(allocate, clients)
            return [
                (client, process)
                for client, process in zip(clients, let_in, strict=True)
                if process is not None
            ]

        for _ in range(2):  # what was deleted is released once
            held = allocate_all()
            assert len(held) == QUOTA
            assert len({process for _, process in held}) > 1
            for client, _ in held:
                client.refresh(0)
        held = allocate_all()
        share = Counter(process for _, process in held)
        victim, lost = share.most_common(1)[0]
        relay.kill(victim)
        survivors = {client for client, process in held if process != victim}
        clients = [client for client in clients if client not in survivors]
        assert len(allocate_all()) == lost


@pytest.mark.django_db(transaction=True)
def test_sessions_of_all_processes_reach_the_books_to_the_byte(
    relay: Several, organisation: Organisation
) -> None:
    Project.objects.create(organisation=organisation, name="Calls", public_id=PROJECT)
    networks = relay.networks()
    journal = relay.server.home / "journal"
    assert len({boot.boot for boot in boot_directories(journal)}) == PROCESSES
    received = Counter[str]()
    for network in networks:
        client, peer = relay.client(network), relay.peer()
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        ping_pong(client, peer, 10 + network)
        client.refresh(0)
        # All but the 401: the first answer came before the client proved who it is.
        received[f"127.1.{network}.1"] = sum(client.received[1:])
    relay.server.stop()
    journal_ship(directory=journal, now=timezone.now())
    assert list(journal.iterdir()) == []
    calls = Session.objects.filter(peer_received_bytes__gt=0)
    assert {call.client_address: call.client_sent_bytes for call in calls} == received
    assert len({call.boot for call in calls}) == PROCESSES
    assert not Session.objects.filter(ended_at=None).exists()
    assert not QuarantinedRecord.objects.exists()
    usage = UsageRow.objects.filter(boot__in={call.boot for call in calls})
    assert usage.count() >= PROCESSES


@pytest.mark.django_db(transaction=True)
def test_books_of_a_killed_process_are_closed_while_the_relay_lives(
    relay: Several, organisation: Organisation
) -> None:
    Project.objects.create(organisation=organisation, name="Calls", public_id=PROJECT)
    networks = relay.networks()
    clients = [relay.client(network) for network in networks]
    for client in clients:
        client.allocate()
    journal = relay.server.home / "journal"

    def shipped() -> int:
        journal_ship(directory=journal, now=timezone.now())
        return Session.objects.filter(ended_at=None).count()

    until(lambda: shipped() == PROCESSES)
    relay.kill(0)
    until(lambda: shipped() == PROCESSES - 1)
    assert clients[1].refresh(600) == 600


def test_killed_parent_leaves_no_process_and_every_journal_is_complete(relay: Several) -> None:
    processes = [psutil.Process(pid) for pid in relay.pids().values()]
    relay.client(1).allocate()
    relay.server.process.kill()
    assert wait_until_gone(processes, PATIENCE_SECONDS) == []
    lines = (relay.server.home / "output").read_text().splitlines()
    stopped = [json.loads(line) for line in lines if '"relay_stopped"' in line]
    assert sorted(event["process"] for event in stopped) == list(range(PROCESSES))
    assert all(event["journal_complete"] for event in stopped)


def shared_memory(pid: int) -> list[str]:
    """What a process would share with its children: memory, and the file that is locked."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    files = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return [line for line in maps if "/dev/zero" in line] + [
        each for each in files if "memfd" in each
    ]


def test_relay_of_one_process_forks_nothing_and_shares_no_memory(tmp_path: Path) -> None:
    with server_running("mindmore", tmp_path) as server:
        with server.client() as client:
            client.allocate()
        assert psutil.Process(server.process.pid).children() == []
        assert shared_memory(server.process.pid) == []
        assert '"process"' not in (server.home / "output").read_text()


def test_processes_share_one_piece_of_memory_and_its_lock(relay: Several) -> None:
    for pid in (relay.server.process.pid, *relay.pids().values()):
        assert len(shared_memory(pid)) == 2
