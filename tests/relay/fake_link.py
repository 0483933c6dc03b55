"""A TURN server, its clients and the world of peers, joined without a socket or a clock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from itertools import chain
from operator import attrgetter

from relay.core.addresses import FiveTuple, SockAddress, host_family
from relay.core.allocation import Allocation
from relay.core.channeldata import CHANNELDATA_HEADER, HEADER_LENGTH
from relay.core.connections import PeerConnection
from relay.core.credentials import password_derive, username_format
from relay.core.effects import (
    AllocationEnded,
    AllocationMoved,
    AllocationStarted,
    Authenticated,
    BindConnection,
    CloseConnection,
    CloseRelayed,
    CloseReserved,
    ConnectPeer,
    Effect,
    OpenRelayed,
    SendToClient,
    SendToPeer,
    Silenced,
)
from relay.core.holdings import Holdings
from relay.core.policy import PeerPolicyRules
from relay.core.refusals import Refusal
from relay.core.settings import TurnSettings
from relay.core.turn import DROPPED, TurnServer
from tests.turn_client import TurnClient

START = 1_800_000_000.0
SECRET = b"the current secret"
OLD_SECRET = b"the secret before it"
SERVER: SockAddress = ("198.51.100.1", 3478)
RELAYED_HOST = "198.51.100.1"
PEER: SockAddress = ("8.8.8.8", 5000)


def settings_make(**changed: object) -> TurnSettings:
    """Settings like those of a server on the internet, but for what is `changed`."""
    defaults: dict[str, object] = {
        "realm": "turn",
        "secrets": (SECRET, OLD_SECRET),
        "nonce_keys": (b"nonce key",),
        "relay_addresses": (RELAYED_HOST,),
        "relay_ports": (50000, 50099),
        "peer_rules": PeerPolicyRules(),
        # Time stands still here: the tests of these two set them.
        "unauthenticated_answers_per_second": 0,
        "failures_per_minute": 0,
    }
    return TurnSettings(**{**defaults, **changed})  # type: ignore[arg-type]


class World:
    """Carries out effects in memory.

    Attributes:
        now: the time; move it with `pass_seconds`.
        opening_is_slow: relayed sockets are opened by `open_all` only.
        ports_elsewhere: ports that something else on this host has.
        no_descriptors: whether the kernel has none left for a socket.
        openings: how often a relayed socket was asked for.
        relayed: addresses with an open relayed socket.
        reserved: addresses that are held for whoever has the token.
        to_peers: what left for peers: (relayed port, peer, data).
        unfragmented: those of them that were sent with DF set.
        started, ended, events: what the connection log would be told.
        connecting, bound, closed: TCP connections with peers, as the core asked for.
        client_bytes: what clients were sent that counts as somebody's.
        moved: client addresses that allocations have left.
        silences: what the log would be told of limits on answers.
    """

    def __init__(
        self,
        settings: TurnSettings | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        holdings: Holdings | None = None,
    ) -> None:
        self.now = START
        self.openings = 0
        self.turn = TurnServer(settings or settings_make(), random_bytes, holdings)
        self.clients: dict[SockAddress, FakeClient] = {}
        self.ports_elsewhere: set[int] = set()
        self.no_descriptors = False
        self.relayed: dict[SockAddress, Allocation] = {}
        self.reserved: set[SockAddress] = set()
        self.to_peers: list[tuple[int, SockAddress, bytes]] = []
        self.unfragmented: list[bytes] = []
        self.started: list[Allocation] = []
        self.ended: list[Allocation] = []
        self.client_bytes = 0
        self.moved: list[SockAddress] = []
        self.connecting: list[PeerConnection] = []
        self.bound: list[tuple[PeerConnection, FiveTuple]] = []
        self.closed: list[PeerConnection] = []
        self.events: list[tuple[str, str | None]] = []
        self.opening_is_slow = False
        self.opening: list[OpenRelayed] = []
        self.silences: list[tuple[str, int]] = []

        self.handlers: dict[type[Effect], Callable[..., object]] = {
            SendToClient: self.deliver,
            SendToPeer: self.handle_send_to_peer,
            OpenRelayed: self.open_relayed,
            CloseReserved: self.close_reserved,
            CloseRelayed: lambda effect: self.relayed.pop(effect.relayed.sockaddr),
            ConnectPeer: lambda effect: self.connecting.append(effect.connection),
            BindConnection: lambda effect: self.bound.append((effect.connection, effect.client)),
            CloseConnection: lambda effect: self.closed.append(effect.connection),
            AllocationStarted: lambda effect: self.handle_started(effect.allocation),
            AllocationMoved: lambda effect: self.moved.append(effect.previous.client),
            AllocationEnded: self.handle_ended,
            Authenticated: lambda effect: self.events.append(
                (effect.outcome.value, effect.project)
            ),
            Silenced: lambda effect: self.silences.append((effect.limit, effect.dropped)),
        }

    @property
    def open_ports(self) -> dict[int, Allocation]:
        """Ports with an open relayed socket."""
        return {port: allocation for (_, port), allocation in self.relayed.items()}

    def client(
        self,
        address: SockAddress = ("192.0.2.7", 40000),
        credential: tuple[str, str] | None = None,
    ) -> FakeClient:
        """A client at `address`, with a good credential unless told otherwise."""
        return FakeClient(self, address, *(credential or credential_make(self.now)))

    def perform(self, effects: list[Effect]) -> None:
        """Do what the core asks, in order."""
        for effect in effects:
            self.handlers[type(effect)](effect)

    def handle_send_to_peer(self, effect: SendToPeer) -> None:
        self.send_to_peer(effect.allocation, effect.data, effect.peer)
        if effect.dont_fragment:
            self.unfragmented.append(effect.data)

    def handle_started(self, allocation: Allocation) -> None:
        self.started.append(allocation)
        self.events.append(("accepted", allocation.owner))

    def handle_ended(self, effect: AllocationEnded) -> None:
        self.ended.append(effect.allocation)
        for sockaddr, allocation in list(self.relayed.items()):
            if allocation is effect.allocation:
                del self.relayed[sockaddr]

    def deliver(self, effect: SendToClient) -> None:
        if effect.allocation is not None:
            effect.allocation.client_sent_bytes += len(effect.datagram)
            self.client_bytes += len(effect.datagram)
        client = self.clients.get(effect.five_tuple.client)
        if client is not None:
            client.arrived.append(effect.datagram)

    def send_to_peer(self, allocation: Allocation, data: bytes, peer: SockAddress) -> None:
        allocation.peer_sent_bytes += len(data)
        relayed = allocation.relayed[host_family(peer[0])]
        assert self.relayed[relayed.sockaddr] is allocation
        self.to_peers.append((relayed.port, peer, data))

    def open_relayed(self, effect: OpenRelayed) -> None:
        if self.opening_is_slow:
            self.opening.append(effect)
            return
        self.openings += 1
        allocation, relayed, reserved = effect.allocation, effect.relayed, effect.reserved
        wanted = {relayed.port} - {port for _, port in self.reserved}
        if reserved is not None:
            wanted.add(reserved[1])
        if wanted & self.ports_elsewhere or self.no_descriptors:
            self.perform(
                self.turn.relayed_failed(
                    allocation, self.now, another_may_do=not self.no_descriptors
                )
            )
            return
        self.reserved.discard(relayed.sockaddr)
        assert not {relayed.sockaddr, reserved} & self.relayed.keys()
        if reserved is not None:
            self.reserved.add(reserved)
        self.relayed[relayed.sockaddr] = allocation
        allocation.relayed_send = lambda data, _peer: len(data)
        self.perform(self.turn.relayed_opened(allocation, self.now))

    def close_reserved(self, effect: CloseReserved) -> None:
        self.reserved.remove(effect.reserved)

    def open_all(self) -> None:
        """Open what waits since opening was slow."""
        self.opening_is_slow = False
        while self.opening:
            self.open_relayed(self.opening.pop(0))

    def from_client(self, client: SockAddress, datagram: bytes, transport: str = "udp") -> None:
        """A datagram of a client reaches the server."""
        five_tuple = FiveTuple(transport, client, SERVER)
        if datagram and datagram[0] & 0xC0 == 0x40:
            self.perform(self.turn.moved_here(five_tuple))
            allocation = self.turn.table.find(five_tuple)
            if allocation is None:
                return
            if len(datagram) < HEADER_LENGTH:
                return
            number, length = CHANNELDATA_HEADER.unpack_from(datagram)
            channel = self.turn.forward_from_client(
                allocation, number, length, datagram, len(datagram), self.now
            )
            if channel is not None:
                data = datagram[HEADER_LENGTH : HEADER_LENGTH + length]
                self.send_to_peer(allocation, data, channel.peer)
            return
        self.perform(self.turn.receive_from_client(datagram, five_tuple, self.now))

    def from_peer(self, relayed_port: int, peer: SockAddress, data: bytes) -> None:
        """A datagram of a peer reaches a relayed address."""
        host = self.turn.table.relay_hosts[host_family(peer[0])]
        allocation = self.relayed[host, relayed_port]
        bound = allocation.channel_by_peer.get(peer)
        channel = self.turn.forward_from_peer(allocation, bound, data, 0, len(data), self.now)
        if channel == DROPPED:
            return
        if channel and allocation.id not in self.turn.table.adrift:
            datagram = channel.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
            self.deliver(SendToClient(allocation.five_tuple, datagram, allocation))
            return
        effect = self.turn.receive_from_peer(allocation, data, peer, self.now)
        if effect is not None:
            self.deliver(effect)

    def icmp(self, relayed_port: int, peer: SockAddress, icmp: tuple[int, int, int]) -> None:
        """An ICMP error about what was sent to a peer: type, code, MTU."""
        allocation = self.open_ports[relayed_port]
        effect = self.turn.receive_icmp(allocation, peer, icmp, self.now)
        if effect is not None:
            self.deliver(effect)

    def peer_connects(self, allocation: Allocation, peer: SockAddress) -> PeerConnection | None:
        """A peer connects to a relayed address; None where it is closed at once."""
        accepted = self.turn.peer_accepted(allocation, peer, self.now)
        if accepted is None:
            return None
        connection, attempt = accepted
        self.deliver(attempt)
        return connection

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass; deadlines on the way are handled when they are due."""
        end = self.now + seconds
        while (deadline := self.turn.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.perform(self.turn.handle_deadline(self.now))
        self.now = end

    def refusals_explain(self, label: str, now: float, project: str | None = None) -> list[Refusal]:
        """Why requests with this username, credential id or label were refused, oldest first."""
        steps = self.turn.guard.refusals.explain_steps(label, project, now)
        return sorted(chain.from_iterable(steps), key=attrgetter("occurred_at"))


class FakeClient(TurnClient):
    """The test client with the fake link in the place of its socket."""

    transport = "udp"

    def __init__(self, world: World, address: SockAddress, username: str, password: str) -> None:
        self.world = world
        self.address = address
        self.username = username
        self.password = password
        self.realm = b""
        self.nonce = b""
        self.key = b""
        self.sent = []
        self.received = []
        self.inbox = deque()
        self.icmp = []
        self.attempts = []
        self.arrived: deque[bytes] = deque()
        world.clients[address] = self

    def transmit(self, datagram: bytes) -> None:
        self.sent.append(len(datagram))
        self.world.from_client(self.address, datagram, self.transport)

    def datagram_receive(self) -> bytes:
        if not self.arrived:
            raise TimeoutError
        datagram = self.arrived.popleft()
        self.received.append(len(datagram))
        return datagram

    def port(self) -> int:
        """The port of a fresh allocation."""
        return self.allocate()[1]


def credential_make(
    now: float, *, ttl_seconds: float = 3600, project: str = "prj_a", secret: bytes = SECRET
) -> tuple[str, str]:
    """A username that ends `ttl_seconds` from now, and its password."""
    username = username_format(
        expires_at=int(now + ttl_seconds), project=project, credential="crd_b"
    )
    return username, password_derive(secret, username)
