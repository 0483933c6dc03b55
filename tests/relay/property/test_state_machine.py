"""Whatever clients, peers and time do, in whatever order: the promises hold.

Expectations are kept here in the plainest form, beside what the server does: which permissions have
been given and until when. After every step the whole state is compared.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from relay.core.addresses import SockAddress, host_family
from relay.core.allocation import Allocation
from tests.relay.fake_link import RELAYED_HOST, World, credential_make, settings_make
from tests.turn_client import UDP_PROTOCOL, Attribute, Attributes, Method, TurnError

RELAYED_HOST6 = "2a00:1450:4001::1"
PERMISSION_SECONDS = 300
PORTS = (50000, 50011)
CLIENTS = [("192.0.2.7", 40000 + number) for number in range(6)]
PEERS: list[SockAddress] = [
    ("8.8.8.8", 5000),
    ("8.8.8.8", 5001),
    ("8.8.4.4", 5000),
    ("2a00:1450:4001::7", 5000),
    ("10.0.0.1", 5000),  # the policy refuses it
]
CHANNELS = [0x4000, 0x4001, 0x7FFF, 0x3FFF]
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
EVEN_PORT, TOKEN = Attribute.EVEN_PORT, Attribute.RESERVATION_TOKEN
FAMILIES: list[Attributes] = [
    [],
    [(Attribute.REQUESTED_ADDRESS_FAMILY, b"\x01\0\0\0")],
    [(Attribute.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")],
    [(Attribute.ADDITIONAL_ADDRESS_FAMILY, b"\x02\0\0\0")],
]
EXTRAS: list[Attributes] = [
    [],
    [(EVEN_PORT, b"\0")],
    [(EVEN_PORT, b"\x80")],
    [(Attribute.MOBILITY_TICKET, b"")],
]
clients = st.integers(0, len(CLIENTS) - 1)
peers = st.sampled_from(PEERS)
data = st.binary(max_size=40)


class TurnMachine(RuleBasedStateMachine):
    """Clients that may hold an allocation each, peers, and time."""

    tokens: Bundle[bytes] = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            settings_make(
                relay_addresses=(RELAYED_HOST, RELAYED_HOST6),
                relay_ports=PORTS,
                permissions_max=3,
                channels_max=2,
                peers_max=50,
            )
        )
        self.world.ports_elsewhere = {50003}
        self.credential = credential_make(self.world.now, ttl_seconds=24 * 3600)
        self.clients = [self.world.client(address, self.credential) for address in CLIENTS]
        # By client's number: until when it has permitted a host.
        self.permitted: list[dict[str, float]] = [{} for _ in CLIENTS]
        self.peer_bytes = 0

    # --- what clients ask -------------------------------------------------------------------------

    @rule(
        number=clients,
        family=st.sampled_from(FAMILIES),
        extra=st.sampled_from(EXTRAS),
        target=tokens,
    )
    def allocate(self, number: int, family: Attributes, extra: Attributes) -> bytes:
        fresh = self.allocation(number) is None
        answer = self.ask(number, Method.ALLOCATE, [REQUESTED, *family, *extra])
        if answer is None:
            return b"no token"
        assert fresh
        self.permitted[number] = {}
        return answer.get(TOKEN, b"no token")

    @rule(number=clients, token=consumes(tokens))
    def allocate_reserved(self, number: int, token: bytes) -> None:
        if self.ask(number, Method.ALLOCATE, [REQUESTED, (TOKEN, token)]) is not None:
            self.permitted[number] = {}

    @rule(number=clients, seconds=st.sampled_from([0, 600, 3600]), family=st.integers(0, 2))
    def refresh(self, number: int, seconds: int, family: int) -> None:
        attributes: Attributes = [(Attribute.LIFETIME, seconds.to_bytes(4, "big"))]
        self.ask(number, Method.REFRESH, [*attributes, *FAMILIES[family]])

    @rule(number=clients, chosen=st.lists(peers, min_size=1, max_size=3))
    def permit(self, number: int, chosen: list[SockAddress]) -> None:
        attributes: Attributes = [(Attribute.XOR_PEER_ADDRESS, peer) for peer in chosen]
        if self.ask(number, Method.CREATE_PERMISSION, attributes) is not None:
            for host, _ in chosen:
                self.permitted[number][host] = self.world.now + PERMISSION_SECONDS

    @rule(number=clients, channel=st.sampled_from(CHANNELS), peer=peers)
    def bind(self, number: int, channel: int, peer: SockAddress) -> None:
        attributes: Attributes = [
            (Attribute.CHANNEL_NUMBER, channel.to_bytes(2, "big") + b"\0\0"),
            (Attribute.XOR_PEER_ADDRESS, peer),
        ]
        if self.ask(number, Method.CHANNEL_BIND, attributes) is not None:
            self.permitted[number][peer[0]] = self.world.now + PERMISSION_SECONDS

    # --- data -------------------------------------------------------------------------------------

    @rule(number=clients, peer=peers, content=data)
    def send(self, number: int, peer: SockAddress, content: bytes) -> None:
        self.clients[number].send(peer, content)
        self.judge_sent(number)

    @rule(number=clients, channel=st.sampled_from(CHANNELS), content=data)
    def send_channel(self, number: int, channel: int, content: bytes) -> None:
        self.clients[number].send_channel(channel, content)
        self.judge_sent(number)

    def judge_sent(self, number: int) -> None:
        """No byte reaches a peer without a live permission of who sent it."""
        for port, peer, content in self.world.to_peers:
            assert self.permitted[number].get(peer[0], 0.0) > self.world.now
            allocation = self.allocation(number)
            assert allocation is not None
            assert allocation.relayed[host_family(peer[0])].port == port
            self.peer_bytes += len(content)
        self.world.to_peers.clear()

    @rule(number=clients, peer=peers, content=data)
    def peer_sends(self, number: int, peer: SockAddress, content: bytes) -> None:
        allocation = self.allocation(number)
        relayed = allocation and allocation.relayed.get(host_family(peer[0]))
        if not relayed:
            return
        self.clients[number].arrived.clear()
        self.world.from_peer(relayed.port, peer, content)
        permitted = self.permitted[number].get(peer[0], 0.0) > self.world.now
        assert bool(self.clients[number].arrived) == permitted

    # --- time, and its end ------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 29, 150, 300, 599, 4000]))
    def wait(self, seconds: float) -> None:
        self.world.pass_seconds(seconds)

    def teardown(self) -> None:
        """Nothing leaks."""
        world = self.world
        world.perform(world.turn.end_all())
        table = world.turn.table
        assert (world.relayed, world.reserved) == ({}, set())
        assert (table.by_id, table.by_relayed, table.moving, table.adrift) == ({}, {}, {}, {})
        assert (table.ports.taken_count, len(table._reservations)) == (0, 0)
        assert table.entitlements.held_count("prj_a") == 0
        assert len(world.started) == len(world.ended)
        assert len({allocation.id for allocation in world.ended}) == len(world.ended)
        received = sum(found.peer_sent_bytes for found in world.started)
        assert received == self.peer_bytes

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def ports_in_use_are_those_of_live_allocations_and_reservations(self) -> None:
        table = self.world.turn.table
        live = [
            relayed.sockaddr
            for allocation in table.by_id.values()
            for relayed in allocation.relayed.values()
        ]
        assert sorted(live) == sorted(self.world.relayed)
        reserved = {sockaddr for sockaddr, _ in table._reservations.values()}
        assert reserved == self.world.reserved
        assert table.ports.taken_count == len(live) + len(reserved)

    @invariant()
    def quota_is_what_is_held(self) -> None:
        table = self.world.turn.table
        assert table.entitlements.held_count("prj_a") == len(table.by_id)

    @invariant()
    def tables_are_bounded(self) -> None:
        for allocation in self.world.turn.table.by_id.values():
            assert len(allocation.permissions) <= 3
            assert len(allocation.channels) == len(allocation.channel_by_peer) <= 2

    @invariant()
    def counters_are_the_bytes_that_were_moved(self) -> None:
        client_sent = sum(found.client_sent_bytes for found in self.world.started)
        assert client_sent == self.world.client_bytes

    # --- helpers ----------------------------------------------------------------------------------

    def allocation(self, number: int) -> Allocation | None:
        """The allocation that a client holds."""
        client = self.clients[number]
        found = [
            allocation
            for allocation in self.world.turn.table.by_id.values()
            if allocation.client == client.address
        ]
        return found[0] if found else None

    def ask(self, number: int, method: Method, attributes: Attributes) -> dict[int, bytes] | None:
        """The attributes of the success response, or None."""
        self.clients[number].arrived.clear()
        try:
            return self.clients[number].request(method, attributes).attributes
        except TurnError:
            return None


TurnMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestTurnMachine = TurnMachine.TestCase
