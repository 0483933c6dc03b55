"""Calls through a relay, and whether its counters equal what a packet capture saw.

    unshare --user --map-root-user --net python -m tests.relay.interop.captured DIRECTORY

Prints one JSON object: for each call the four counters that the relay wrote into its journal, and
the four that the wire says. The wire's are payload bytes on each side, less those exchanges that
nobody pays for: the challenge before authentication, what was refused, and Binding requests.
"""

from __future__ import annotations

import json
import secrets
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from relay.metering.records import SessionRecord, UsageRecord
from tests.certificates import certificate_write
from tests.relay.interop.capture import Capture, captured
from tests.relay.interop.journal import records_read
from tests.relay.interop.servers import HOST, HOST6, Server, server_running
from tests.relay.transports.rig import DatagramClient, DtlsClient
from tests.stream_client import StreamClient
from tests.turn_client import UDP_PROTOCOL, Address, Attribute, Method, TurnClient, TurnError

CHANNEL = 0x4ABC
PATIENCE_SECONDS = 20.0  # so long that no request is sent twice
SIZES = (0, 1, 3, 160, 1200)
STREAM_BYTES, TIMES = 30_000, 10
STRANGER_HOST = "127.0.0.3"
TCP = (Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")
CIPHERS = "ECDHE+AESGCM"  # `capture` knows how much of a record is plaintext


@dataclass
class Call:
    """One allocation, and all whom it spoke with.

    Attributes:
        server: the relay.
        capture: which runs meanwhile.
        clients: transport, client's and server's address of every connection with the server.
        peers: protocol, relayed and peer's address.
        unpaid: bytes from and to the client that belong to no allocation.
    """

    server: Server
    capture: Capture
    clients: list[tuple[str, Address, Address]] = field(default_factory=list)
    peers: list[tuple[str, Address, Address]] = field(default_factory=list)
    unpaid: list[int] = field(default_factory=lambda: [0, 0])

    def client(self, transport: str, host: str = HOST) -> TurnClient:
        """One more connection with the server."""
        address = host, self.server.port
        client = CLIENTS[transport](address, *self.credential)
        client.socket.settimeout(PATIENCE_SECONDS)
        self.clients.append((transport, client.socket.getsockname()[:2], address))
        return client

    @property
    def credential(self) -> tuple[str, str]:
        """The same for all its connections."""
        return self.server.credential("captured")

    def leave_out(self, client: TurnClient, which: int) -> None:
        """Nobody pays for one request of a client, and the answer."""
        self.unpaid[0] += client.sent[which]
        self.unpaid[1] += client.received[which]

    def wire(self) -> list[int]:
        """Client received and sent, peer received and sent, as the wire has it."""
        count = self.capture.carried_bytes
        return [
            sum(count(kind, client, server) for kind, client, server in self.clients)
            - self.unpaid[0],
            sum(count(kind, server, client) for kind, client, server in self.clients)
            - self.unpaid[1],
            sum(count(kind, peer, relayed) for kind, relayed, peer in self.peers),
            sum(count(kind, relayed, peer) for kind, relayed, peer in self.peers),
        ]


def tls_client(server: Address, username: str, password: str) -> TurnClient:
    client = StreamClient(server, username, password)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    client.socket = context.wrap_socket(client.socket)
    return client


def dtls_client(server: Address, username: str, password: str) -> TurnClient:
    client = DtlsClient(server, username, password)
    name = client.dtls.get_cipher_name() or ""
    assert "GCM" in name
    assert client.dtls.get_protocol_version_name() == "DTLSv1.2"
    return client


CLIENTS: dict[str, Callable[..., TurnClient]] = {
    "udp": DatagramClient,
    "tcp": StreamClient,
    "tls": tls_client,
    "dtls": dtls_client,
}


@contextmanager
def datagram_peer(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.bind((host, 0))
        peer.settimeout(PATIENCE_SECONDS)
        yield peer


def allocated(call: Call, client: TurnClient, *attributes: tuple[int, bytes]) -> Address:
    """The relayed address; the challenge is left out."""
    answer = client.request(
        Method.ALLOCATE, attributes or [(Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)]
    )
    call.leave_out(client, 0)
    return answer.address(Attribute.XOR_RELAYED_ADDRESS)


def talk(call: Call, client: TurnClient, relayed: Address, channel: int = CHANNEL) -> None:
    """Data in each form and direction; and what nobody pays for."""
    host = relayed[0]
    with datagram_peer(host) as peer:
        here = peer.getsockname()[:2]
        call.peers.append(("udp", relayed, here))
        client.permit(here)
        for size in SIZES:
            client.send(here, bytes(size))
            assert len(peer.recv(2000)) == size
            peer.sendto(bytes(size), relayed)
            assert client.receive() == (here, bytes(size))
        client.bind(channel, here)
        with datagram_peer(STRANGER_HOST) as stranger:
            if ":" not in host:
                stranger.sendto(b"without a permission", relayed)
        for size in SIZES:
            client.send_channel(channel, bytes(size))
            assert len(peer.recv(2000)) == size
            peer.sendto(bytes(size), relayed)
            assert client.receive() == (channel, bytes(size))
    client.binding()
    call.leave_out(client, -1)
    try:
        client.permit(("192.0.2.1", 9))
    except TurnError:
        call.leave_out(client, -1)


def over(call: Call, transport: str, host: str = HOST) -> None:
    """One call over one transport."""
    with call.client(transport, host) as client:
        talk(call, client, allocated(call, client))
        client.refresh(0)


def to_ipv6(call: Call) -> None:
    """A client over IPv6 with an IPv6 relayed address."""
    with call.client("udp", HOST6) as client:
        family = (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")
        udp = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
        talk(call, client, allocated(call, client, udp, family))
        client.refresh(0)


def with_tcp(call: Call, transport: str) -> None:
    """A TCP allocation (RFC 6062): a connection that the client asks for, and streams in it."""
    with call.client(transport) as client, socket.create_server((HOST, 0)) as listener:
        relayed = allocated(call, client, TCP)
        listener.settimeout(PATIENCE_SECONDS)
        attribute = Attribute.XOR_PEER_ADDRESS, listener.getsockname()
        identifier = client.request(Method.CONNECT, [attribute]).attributes[Attribute.CONNECTION_ID]
        peer, _ = listener.accept()
        call.peers.append(("tcp", relayed, listener.getsockname()))
        with call.client(transport) as data, peer:
            data.request(Method.CONNECTION_BIND, [(Attribute.CONNECTION_ID, identifier)])
            call.leave_out(data, 0)
            for _ in range(TIMES):
                stream_through(data.socket, peer)
                stream_through(peer, data.socket)
                call.capture.catch_up()
        client.refresh(0)


def stream_through(source: socket.socket, destination: socket.socket) -> None:
    """Send many bytes; wait until all have come."""
    destination.settimeout(PATIENCE_SECONDS)
    sent, got = secrets.token_bytes(STREAM_BYTES), b""
    source.sendall(sent)
    while len(got) < len(sent):
        part = destination.recv(1 << 16)
        assert part
        got += part
    assert got == sent


def moving(call: Call) -> None:
    """An allocation that goes on from another address of its client (RFC 8016)."""
    ask = Attribute.MOBILITY_TICKET, b""
    udp = Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL
    with call.client("udp") as home, call.client("udp") as away:
        answer = home.request(Method.ALLOCATE, [udp, ask])
        call.leave_out(home, 0)
        relayed = answer.address(Attribute.XOR_RELAYED_ADDRESS)
        talk(call, home, relayed)
        ticket = Attribute.MOBILITY_TICKET, answer.attributes[Attribute.MOBILITY_TICKET]
        away.request(Method.REFRESH, [ticket])
        call.leave_out(away, 0)
        talk(call, away, relayed, CHANNEL + 1)
        away.refresh(0)


CALLS: dict[str, Callable[[Call], None]] = {
    "udp": lambda call: over(call, "udp"),
    "udp-ipv6": to_ipv6,
    "tcp": lambda call: over(call, "tcp"),
    "tcp-ipv6": lambda call: over(call, "tcp", HOST6),
    "tls": lambda call: over(call, "tls"),
    "dtls": lambda call: over(call, "dtls"),
    "tcp-allocation": lambda call: with_tcp(call, "tcp"),
    "tcp-allocation-tls": lambda call: with_tcp(call, "tls"),
    "mobility": moving,
}


def counted(server: Server, call: Call) -> list[int]:
    """The four counters of a call, as the relay has written them down."""
    records = records_read(server.home)
    _, client, _ = call.clients[0]
    (allocation,) = (
        each.allocation
        for each in records
        if isinstance(each, SessionRecord) and (each.client_address, each.client_port) == client
    )
    last = [
        each for each in records if isinstance(each, UsageRecord) and each.allocation == allocation
    ][-1]
    assert last.ended
    return [
        last.client_received_total,
        last.client_sent_total,
        last.peer_received_total,
        last.peer_sent_total,
    ]


def main(directory: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    certificate = certificate_write(directory, "turn.test")
    with server_running("mindmore", directory, certificate=certificate) as server:
        with captured() as capture:
            calls = {name: Call(server, capture) for name in CALLS}
            for name, call in calls.items():
                CALLS[name](call)
                capture.catch_up()
        server.stop()
    found = {
        name: {"counted": counted(server, call), "wire": call.wire()}
        for name, call in calls.items()
    }
    (directory / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
