"""The load generator: a process of its own, on its own core and in the clients' namespace.

It takes commands as JSON lines on standard input and answers each with one line. Messages are
laid out beforehand; sockets are drained in batches; it reads the server's CPU time itself, so
that the interval is exactly the one in which it sent.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter, sleep
from typing import Any

from tests.bench.batch import Receiver, Sender
from tests.bench.delay import DelayProbe
from tests.bench.servers import PORT, Server, files_limit_raise
from tests.stream_client import StreamClient
from tests.turn_client import (
    Address,
    Attribute,
    Kind,
    Method,
    TurnClient,
    allocate_attributes,
    channeldata_encode,
    credentials_mint,
    long_term_key,
    message_decode,
    message_encode,
)

CHANNEL = 0x4000
BURST_MAX = 64
DRAIN_SECONDS = 0.001
SETTLE_SECONDS = 0.1
SO_RCVBUFFORCE = 33
WINDOW = 128  # allocations in flight
RETRANSMISSION_SECONDS = 0.5  # RFC 8489 section 6.2.1
RETRANSMISSIONS = 4


@dataclass
class Rig:
    """100 allocations, each with a channel to one peer, ready to carry data."""

    clients: list[TurnClient]
    peer: socket.socket
    relayed: list[Address]
    transport: str
    probe: DelayProbe


def receive_buffer_grow(endpoint: socket.socket, size: int) -> None:
    """As large as this machine allows, so that no loss here is taken for the server's."""
    try:
        endpoint.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def rig_make(
    server: Server,
    secret: str,
    expires_at: int,
    peer_host: str,
    clients: list[str],
    transport: str,
) -> Rig:
    """Allocate, bind, and check one packet of each direction for each allocation."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind((peer_host, 0))
    peer.settimeout(2)
    receive_buffer_grow(peer, 16 << 20)
    credential = credentials_mint(secret, f"{expires_at}:prj_bench/crd_probe")
    rig = Rig([], peer, [], transport, probe_make(server, credential, peer_host, clients[0]))
    for index, host in enumerate(clients):
        username, password = credentials_mint(secret, f"{expires_at}:prj_bench/crd_{index}")
        client = client_make(transport, (server.host, PORT), (username, password), (host, 0))
        rig.relayed.append(client.allocate())
        client.bind(CHANNEL, peer.getsockname())
        probe = index.to_bytes(8, "big")
        client.send_channel(CHANNEL, probe)
        data, source = peer.recvfrom(100)
        peer.sendto(data, source)
        if source != rig.relayed[-1] or client.receive() != (CHANNEL, probe):
            raise SystemExit(f"{server.name} does not relay what it was given")
        client.socket.setblocking(False)
        rig.clients.append(client)
    peer.setblocking(False)
    return rig


def client_make(
    transport: str, server: Address, credential: tuple[str, str], local: Address
) -> TurnClient:
    """A client over udp, tcp or tls."""
    if transport != "udp":
        return StreamClient(server, *credential, tls=transport == "tls", local=local)
    client = TurnClient(server, *credential, local=local)
    receive_buffer_grow(client.socket, 2 << 20)
    return client


def probe_make(
    server: Server, credential: tuple[str, str], peer_host: str, host: str
) -> DelayProbe:
    """One more allocation, over UDP, with a peer of its own."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind((peer_host, 0))
    peer.setblocking(False)
    client = client_make("udp", (server.host, PORT), credential, (host, 0))
    relayed = client.allocate()
    client.bind(CHANNEL, peer.getsockname())
    client.socket.setblocking(False)
    return DelayProbe(client, peer, relayed)


class StreamDrain:
    """Counts the messages of one size that arrive on a stream."""

    def __init__(self, client: TurnClient, size: int) -> None:
        self.receive = client.socket.recv_into
        self.buffer = bytearray(1 << 16)
        self.length = len(channeldata_encode(CHANNEL, bytes(size + -size % 4)))
        self.bytes = 0

    def drain(self) -> int:
        """Take everything that waits; how many messages that completed."""
        before = self.bytes // self.length
        try:
            while got := self.receive(self.buffer):
                self.bytes += got
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        return self.bytes // self.length - before


def stream_send(client: TurnClient) -> Callable[[bytes], object]:
    """What sends a whole message, and waits where it must: half a one would break the stream."""
    send = client.socket.send

    def whole(message: bytes) -> None:
        rest = memoryview(message)
        while rest:
            try:
                rest = rest[send(rest) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                select.select([], [client.socket], [], 1)

    return whole


def rig_close(rig: Rig) -> None:
    """Delete the allocations."""
    rig.probe.close()
    for client in rig.clients:
        client.socket.settimeout(2)
        client.refresh(0)
        client.socket.close()
    rig.peer.close()


def traffic_run(
    rig: Rig, server: Server, size: int, rate: float, seconds: float
) -> dict[str, float]:
    """Send `rate` packets a second, half from clients and half from the peer, and count.

    Returns what was sent, what arrived at the other side, and what that cost the server.
    """
    payload = bytes(size)
    channeldata = channeldata_encode(CHANNEL, payload)
    down = Sender(rig.peer, rig.relayed, payload)
    receiver = Receiver()
    if rig.transport == "udp":
        sends: list[Callable[[bytes], object]] = [client.socket.send for client in rig.clients]
        drains: list[Callable[[], int]] = [
            partial(receiver.drain, client.socket.fileno()) for client in rig.clients
        ]
    else:
        sends = [stream_send(client) for client in rig.clients]
        drains = [StreamDrain(client, size).drain for client in rig.clients]
    sent_up = sent_down = received = at = 0
    cpu_before = server.cpu_seconds()
    start = drained = perf_counter()
    while (now := perf_counter()) - start < seconds:
        due = int((now - start) * rate) - sent_up - sent_down
        burst = min(due // 2, BURST_MAX)
        for index in range(at, at + burst):
            try:
                sends[index % len(sends)](channeldata)
            except BlockingIOError:
                break
            sent_up += 1
        at += burst
        if burst > 0:
            sent_down += down.send(burst)
        elif now - drained < DRAIN_SECONDS:
            sleep(0.00005)
        rig.probe.step(now)
        if now - drained >= DRAIN_SECONDS:
            drained = now
            received += receiver.drain(rig.peer.fileno()) + sum(drain() for drain in drains)
    elapsed = perf_counter() - start
    delay_median, delay_p99 = rig.probe.percentiles()
    sleep(SETTLE_SECONDS)
    received += receiver.drain(rig.peer.fileno()) + sum(drain() for drain in drains)
    return {
        "offered_per_second": rate,
        "sent": sent_up + sent_down,
        "received": received,
        "seconds": elapsed,
        "server_cpu_seconds": server.cpu_seconds() - cpu_before,
        "delay_seconds": delay_median,
        "delay_seconds_p99": delay_p99,
    }


@dataclass
class Pending:
    """One allocation under way: what was sent last, and how often."""

    socket: socket.socket
    datagram: bytes
    challenged: bool = False
    resent: int = 0


class Allocator:
    """Makes allocations as fast as the server gives them, WINDOW at a time."""

    def __init__(self, server: Server, secret: str, username: str) -> None:
        self.server = server
        self.username, self.password = credentials_mint(secret, username)
        self.first = message_encode(Method.ALLOCATE, Kind.REQUEST, allocate_attributes())
        self.key = b""
        self.realm = b""
        self.sockets: list[socket.socket] = []
        self.made = 0
        self.refused = self.silent = self.resent = 0

    def sockets_open(self, clients: list[str]) -> None:
        """One connected socket for each future allocation; not part of what is timed."""
        for host in clients:
            endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            endpoint.setblocking(False)
            endpoint.bind((host, 0))
            endpoint.connect((self.server.host, PORT))
            self.sockets.append(endpoint)

    def allocate(self) -> dict[str, float]:
        """Allocate on every socket that has no allocation yet: 401, then the signed request."""
        waiting = iter(self.sockets[self.made :])
        poll = select.epoll()
        pending: dict[int, Pending] = {}
        self.refused = self.silent = self.resent = 0
        cpu_before = self.server.cpu_seconds()
        start = perf_counter()
        while True:
            while len(pending) < WINDOW and (client := next(waiting, None)):
                pending[client.fileno()] = Pending(client, self.first)
                poll.register(client, select.EPOLLIN)
                client.send(self.first)
            if not pending:
                break
            events = [fd for fd, _ in poll.poll(RETRANSMISSION_SECONDS)]
            ended = filter(lambda fd: self.answer_take(pending[fd]), events)
            for fd in list(ended) if events else self.silence_take(pending):
                poll.unregister(fd)
                del pending[fd]
        elapsed = perf_counter() - start
        poll.close()
        made = len(self.sockets) - self.made - self.refused - self.silent
        self.made = len(self.sockets)
        return {
            "allocations": made,
            "refused": self.refused,
            "silent": self.silent,
            "resent": self.resent,
            "seconds": elapsed,
            "server_cpu_seconds": self.server.cpu_seconds() - cpu_before,
        }

    def answer_take(self, pending: Pending) -> bool:
        """Take one answer; whether this allocation is done with, made or refused."""
        message = message_decode(pending.socket.recv(2048))
        if message.kind is Kind.SUCCESS:
            return True
        if message.error_code != 401 or pending.challenged:
            # A late second challenge answers a request that was sent twice.
            self.refused += message.error_code != 401
            return message.error_code != 401
        pending.challenged = True
        if not self.key:
            self.realm = message.attributes[Attribute.REALM]
            self.key = long_term_key(self.username, self.realm.decode(), self.password)
        signed = [
            *allocate_attributes(),
            (Attribute.USERNAME, self.username.encode()),
            (Attribute.REALM, self.realm),
            (Attribute.NONCE, message.attributes[Attribute.NONCE]),
        ]
        pending.datagram = message_encode(Method.ALLOCATE, Kind.REQUEST, signed, key=self.key)
        pending.socket.send(pending.datagram)
        return False

    def silence_take(self, pending: dict[int, Pending]) -> list[int]:
        """Nothing came for a while: send all that is under way again; those to give up."""
        given_up = []
        for fd, each in pending.items():
            if each.resent == RETRANSMISSIONS:
                given_up.append(fd)
            else:
                each.resent += 1
                self.resent += 1
                each.socket.send(each.datagram)
        self.silent += len(given_up)
        return given_up

    def close(self) -> None:
        """Forget the sockets; the allocations end with their server."""
        for client in self.sockets:
            client.close()


class Generator:
    """What the commands do; the state between them."""

    def __init__(self) -> None:
        self.rigs: dict[str, Rig] = {}
        self.allocators: dict[str, Allocator] = {}
        self.servers: dict[str, Server] = {}

    def run(self, command: str, label: str, options: dict[str, Any]) -> dict[str, float]:
        """Carry out one command for the server called `label`."""
        if command == "server":
            self.servers[label] = Server(**options)
        elif command == "rig":
            self.rigs[label] = rig_make(self.servers[label], **options)
        elif command == "rig_close":
            rig_close(self.rigs.pop(label))
        elif command == "traffic":
            return traffic_run(self.rigs[label], self.servers[label], **options)
        elif command == "allocator":
            self.allocators[label] = Allocator(self.servers[label], **options)
        elif command == "allocate":
            self.allocators[label].sockets_open(**options)
            return self.allocators[label].allocate()
        elif command == "allocator_close":
            self.allocators.pop(label).close()
        else:
            raise ValueError(command)
        return {}


def main() -> None:
    """Answer commands until standard input ends."""
    files_limit_raise()
    gc.disable()
    generator = Generator()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(generator.run(*json.loads(line))) + "\n")
        sys.stdout.flush()
        gc.collect()


if __name__ == "__main__":
    main()
