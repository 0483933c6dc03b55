"""TCP allocations: RFC 6062."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from relay.core.addresses import FiveTuple
from relay.core.allocation import TCP_PROTOCOL
from relay.core.connections import Connections
from relay.core.entitlements import AT_ONCE_MAX
from relay.core.limits import ProjectLimits
from tests.relay.expectations import refused
from tests.relay.fake_link import (
    PEER,
    SERVER,
    FakeClient,
    World,
    credential_make,
    settings_make,
)
from tests.turn_client import (
    PAIR,
    Attribute,
    Attributes,
    Kind,
    Message,
    Method,
    message_decode,
    message_encode,
)

TCP = (Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")
DATA_CLIENT = ("192.0.2.7", 40001)
NO_PEER = ("8.8.4.4", 5000)


@pytest.fixture
def world() -> World:
    return World(settings_make(tcp_relay=True, connections_max=2))


@pytest.fixture
def client(world: World) -> FakeClient:
    """A client with a TCP allocation."""
    made = stream_client(world)
    made.request(Method.ALLOCATE, [TCP])
    return made


def stream_client(
    world: World,
    address: tuple[str, int] = ("192.0.2.7", 40000),
    credential: tuple[str, str] | None = None,
) -> FakeClient:
    made = world.client(address, credential)
    made.transport = "tcp"
    return made


def connect_ask(client: FakeClient, peer: tuple[str, int] = PEER) -> None:
    """Send a Connect request; its answer comes when the peer has accepted."""
    attributes: Attributes = [(Attribute.XOR_PEER_ADDRESS, peer), *client.credential_attributes()]
    client.transmit(message_encode(Method.CONNECT, Kind.REQUEST, attributes, key=client.key))


def answer(client: FakeClient) -> Message:
    return message_decode(client.arrived.popleft())


def connected(world: World, client: FakeClient) -> bytes:
    """The id of a new connection with PEER."""
    connect_ask(client)
    world.perform(world.turn.peer_connected(world.connecting[-1], world.now))
    return answer(client).attributes[Attribute.CONNECTION_ID]


def accepted(world: World, client: FakeClient) -> bytes:
    """The id of a new connection that PEER has made."""
    client.permit(PEER)
    connection = world.peer_connects(world.started[0], PEER)
    assert connection is not None
    return message_decode(client.arrived.popleft()).attributes[Attribute.CONNECTION_ID]


def bind(client: FakeClient, connection_id: bytes) -> Message:
    return client.request(Method.CONNECTION_BIND, [(Attribute.CONNECTION_ID, connection_id)])


def of_others(world: World) -> FakeClient:
    """A client of another project."""
    return stream_client(world, ("192.0.2.9", 1), credential_make(world.now, project="prj_b"))


def media_only_set(world: World) -> None:
    limits = ProjectLimits(media_only=True)
    world.perform(world.turn.control.project_limits_set("prj_a", limits, world.now))


def test_connect_is_answered_when_the_peer_accepts_and_bound_by_its_id(
    world: World, client: FakeClient
) -> None:
    connect_ask(client)
    assert not client.arrived
    assert [found.peer for found in world.connecting] == [PEER]
    world.perform(world.turn.peer_connected(world.connecting[0], world.now))
    connection_id = answer(client).attributes[Attribute.CONNECTION_ID]
    bind(stream_client(world, DATA_CLIENT), connection_id)
    assert world.bound == [(world.connecting[0], FiveTuple("tcp", DATA_CLIENT, SERVER))]
    assert world.started[0].peers_unreported == [PEER]
    world.pass_seconds(100)
    assert world.closed == []


def test_peer_that_cannot_be_reached_is_447_at_once_or_after_30_seconds(
    world: World, client: FakeClient
) -> None:
    connect_ask(client)
    world.perform(world.turn.connection_lost(world.connecting[0]))
    assert answer(client).error_code == 447
    connect_ask(client)
    world.pass_seconds(29)
    assert not client.arrived
    world.pass_seconds(1)
    assert answer(client).error_code == 447
    assert world.closed == world.connecting
    assert world.turn.table.connections.by_id == {}


@pytest.mark.parametrize("begin", [connected, accepted])
def test_connection_that_nobody_binds_is_closed_after_30_seconds(
    world: World, client: FakeClient, begin: Callable[[World, FakeClient], bytes]
) -> None:
    connection_id = begin(world, client)
    world.pass_seconds(29)
    assert world.closed == []
    world.pass_seconds(1)
    assert [found.value for found in world.closed] == [connection_id]
    with refused(400):
        bind(stream_client(world, DATA_CLIENT), connection_id)


@pytest.mark.parametrize("begin", [connected, accepted])
def test_connection_that_is_bound_within_30_seconds_lives(
    world: World, client: FakeClient, begin: Callable[[World, FakeClient], bytes]
) -> None:
    connection_id = begin(world, client)
    world.pass_seconds(29)
    bind(stream_client(world, DATA_CLIENT, (client.username, client.password)), connection_id)
    world.pass_seconds(100)
    assert world.closed == []


def test_ids_of_connections_are_unique_and_never_zero(world: World, client: FakeClient) -> None:
    drawn = iter((0, 1, 1, 2))
    connections = Connections(2, lambda length: next(drawn).to_bytes(length, "big"))
    peers = (PEER[0], 5000), (PEER[0], 5001)
    made = [connections.begin(world.started[0], peer, None, world.now) for peer in peers]
    assert [found.value for found in made] == [b"\0\0\0\1", b"\0\0\0\2"]


def test_second_connection_with_a_peer_is_446(world: World, client: FakeClient) -> None:
    connect_ask(client)
    connect_ask(client)
    assert answer(client).error_code == 446
    world.perform(world.turn.peer_connected(world.connecting[0], world.now))
    connection_id = answer(client).attributes[Attribute.CONNECTION_ID]
    connect_ask(client)
    assert answer(client).error_code == 446
    bind(stream_client(world, DATA_CLIENT), connection_id)
    connect_ask(client)
    assert answer(client).error_code == 446


def test_connect_to_a_peer_that_has_connected_by_itself_is_446(
    world: World, client: FakeClient
) -> None:
    accepted(world, client)
    connect_ask(client)
    assert answer(client).error_code == 446


def test_peer_may_be_asked_for_by_two_allocations(world: World, client: FakeClient) -> None:
    others = of_others(world)
    others.request(Method.ALLOCATE, [TCP])
    ids = {connected(world, client), connected(world, others)}
    assert len(ids) == 2


def test_connect_without_an_allocation_is_437(world: World, client: FakeClient) -> None:
    with refused(437):
        stream_client(world, DATA_CLIENT).request(
            Method.CONNECT, [(Attribute.XOR_PEER_ADDRESS, PEER)]
        )


@pytest.mark.parametrize(
    "attributes",
    [
        [],
        [(Attribute.XOR_PEER_ADDRESS, b"\0\1")],
        [(Attribute.XOR_PEER_ADDRESS, b"\0\3" + bytes(6))],
    ],
)
def test_connect_without_a_peer_that_can_be_read_is_a_bad_request(
    client: FakeClient, attributes: Attributes
) -> None:
    with refused(400):
        client.request(Method.CONNECT, attributes)


def test_connections_of_an_allocation_are_bounded(world: World, client: FakeClient) -> None:
    for port in (5000, 5001, 5002):
        connect_ask(client, (PEER[0], port))
    assert len(world.connecting) == 2
    assert answer(client).error_code == 508


@pytest.mark.parametrize(
    ("peer", "code"),
    [(("10.0.0.1", 5000), 403), (("8.8.8.8", 53), 403), (("2a00:1450::1", 5000), 443)],
)
def test_connect_asks_the_peer_policy(
    world: World, client: FakeClient, peer: tuple[str, int], code: int
) -> None:
    connect_ask(client, peer)
    assert answer(client).error_code == code
    assert world.connecting == []


def test_peer_with_a_permission_may_connect_and_others_are_closed(
    world: World, client: FakeClient
) -> None:
    allocation = world.started[0]
    client.permit(PEER)
    assert world.peer_connects(allocation, NO_PEER) is None
    assert world.peer_connects(allocation, (PEER[0], 53)) is None  # the policy counts here too
    connection = world.peer_connects(allocation, PEER)
    assert connection is not None
    with pytest.raises(TimeoutError):
        client.receive()
    assert client.attempts == [(PEER, connection.value)]
    bind(stream_client(world, DATA_CLIENT), connection.value)
    world.pass_seconds(300)
    assert world.peer_connects(allocation, (PEER[0], 5001)) is None


@pytest.mark.parametrize(
    "attributes",
    [
        [],
        [(Attribute.CONNECTION_ID, b"\0\0\0")],
        [(Attribute.CONNECTION_ID, b"\0\0\0\0")],
        [(Attribute.CONNECTION_ID, b"none")],
    ],
)
def test_connection_bind_without_a_connection_is_a_bad_request(
    world: World, client: FakeClient, attributes: Attributes
) -> None:
    connected(world, client)
    with refused(400):
        stream_client(world, DATA_CLIENT).request(Method.CONNECTION_BIND, attributes)


def test_connection_is_bound_once_and_not_over_udp(world: World, client: FakeClient) -> None:
    connection_id = connected(world, client)
    with refused(400):
        bind(world.client(("192.0.2.7", 40002)), connection_id)
    bind(stream_client(world, DATA_CLIENT), connection_id)
    with refused(400):
        bind(stream_client(world, ("192.0.2.7", 40003)), connection_id)


def test_connection_that_has_an_allocation_carries_no_data(
    world: World, client: FakeClient
) -> None:
    connection_id = connected(world, client)
    other = stream_client(world, ("192.0.2.7", 40002))
    other.allocate()
    for controlling in (client, other):
        with refused(437):
            bind(controlling, connection_id)
        assert controlling.refresh(600) == 600
    bind(stream_client(world, DATA_CLIENT), connection_id)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("ticket", [[], [(Attribute.MOBILITY_TICKET, b"")]])
def test_connection_that_a_call_may_move_to_carries_no_data(
    world: World, client: FakeClient, ticket: Attributes, own: bool
) -> None:
    connection_id = connected(world, client)
    credential = client.username, client.password
    home = world.client(("192.0.2.7", 40002), credential if own else credential_make(world.now + 9))
    values: Attributes = [
        (Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"),
        (Attribute.MOBILITY_TICKET, b""),
    ]
    made = home.request(Method.ALLOCATE, values).attributes[Attribute.MOBILITY_TICKET]
    away = stream_client(world, DATA_CLIENT, (home.username, home.password))
    away.request(Method.REFRESH, [(Attribute.MOBILITY_TICKET, made)])
    data = stream_client(world, DATA_CLIENT, credential)
    with refused(437):
        data.request(Method.CONNECTION_BIND, [(Attribute.CONNECTION_ID, connection_id), *ticket])
    assert (world.bound, world.moved) == ([], [home.address] if own else [])


def test_connection_of_another_user_is_441(world: World, client: FakeClient) -> None:
    connection_id = connected(world, client)
    stranger = credential_make(world.now, project="prj_b")
    with refused(441):
        bind(stream_client(world, DATA_CLIENT, stranger), connection_id)


def test_either_end_closes_the_other_one(world: World, client: FakeClient) -> None:
    bind(stream_client(world, DATA_CLIENT), connected(world, client))
    world.perform(world.turn.client_lost(FiveTuple("tcp", DATA_CLIENT, SERVER)))
    assert world.closed == world.connecting
    bind(stream_client(world, DATA_CLIENT), connected(world, client))
    world.perform(world.turn.connection_lost(world.connecting[1]))
    assert world.closed == world.connecting
    assert world.turn.table.connections.by_client == {}


def control_end(world: World, client: FakeClient) -> None:
    world.perform(world.turn.client_lost(world.started[0].five_tuple))


def deleted(world: World, client: FakeClient) -> None:
    assert client.refresh(0) == 0


def expired(world: World, client: FakeClient) -> None:
    world.pass_seconds(600)


@pytest.mark.parametrize("end", [control_end, deleted, expired])
def test_end_of_the_allocation_leaves_no_connection(
    world: World, client: FakeClient, end: Callable[[World, FakeClient], None]
) -> None:
    bind(stream_client(world, DATA_CLIENT), connected(world, client))
    connect_ask(client, (PEER[0], 5001))
    end(world, client)
    assert world.ended == world.started
    table = world.turn.table.connections
    assert (table.by_id, table.by_client) == ({}, {})
    assert world.turn.table.ports.taken_count == 0
    world.perform(world.turn.peer_connected(world.connecting[1], world.now))
    world.perform(world.turn.connection_lost(world.connecting[0]))


@pytest.mark.parametrize(
    ("transport", "attributes", "code"),
    [
        ("udp", [TCP], 400),
        ("tcp", [TCP, (Attribute.EVEN_PORT, b"\0")], 400),
        ("tcp", [TCP, (Attribute.DONT_FRAGMENT, b"")], 400),
        ("dtls", [TCP], 400),
        ("tcp", [TCP, (Attribute.RESERVATION_TOKEN, bytes(8))], 400),
        ("tcp", [TCP, (Attribute.MOBILITY_TICKET, b"")], 405),
        ("tcp", [TCP, (Attribute.MOBILITY_TICKET, b"not empty")], 400),
        ("tcp", [(Attribute.REQUESTED_TRANSPORT, b"\x84\0\0\0")], 442),
    ],
)
def test_allocate_for_tcp_has_conditions(
    world: World, transport: str, attributes: Attributes, code: int
) -> None:
    made = world.client()
    made.transport = transport
    with refused(code):
        made.request(Method.ALLOCATE, attributes)
    assert world.turn.table.ports.taken_count == 0


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_answer_to_an_allocate_for_tcp_has_an_address_and_no_reservation(
    world: World, transport: str
) -> None:
    made = stream_client(world)
    made.transport = transport
    found = made.request(Method.ALLOCATE, [TCP])
    assert found.address(Attribute.XOR_RELAYED_ADDRESS) in world.relayed
    assert Attribute.RESERVATION_TOKEN not in found.attributes
    assert world.started[0].protocol == TCP_PROTOCOL


def test_tcp_allocations_are_off_by_default() -> None:
    world = World()
    made = stream_client(world)
    with refused(442):
        made.request(Method.ALLOCATE, [TCP])
    connect_ask(made)
    assert not made.arrived


def test_project_for_media_only_has_no_tcp_allocations(world: World) -> None:
    world.turn.control.project_limits_set("prj_a", ProjectLimits(media_only=True), world.now)
    with refused(442):
        stream_client(world).request(Method.ALLOCATE, [TCP])


@pytest.mark.parametrize("by_reload", [False, True])
def test_tcp_allocations_end_where_media_only_is_set_and_others_live(
    world: World, client: FakeClient, by_reload: bool
) -> None:
    bind(stream_client(world, DATA_CLIENT), connected(world, client))
    others = [world.client(("192.0.2.7", 1)), of_others(world)]
    others[0].allocate()
    others[1].request(Method.ALLOCATE, [TCP])
    if by_reload:  # prj_b has limits of its own
        world.turn.control.project_limits_set("prj_b", ProjectLimits(), world.now)
        settings = replace(world.turn.settings, project_limits=ProjectLimits(media_only=True))
        enforcement = world.turn.settings_replace(settings)
        world.perform(enforcement.step(world.now))
    else:
        media_only_set(world)
    assert world.ended == world.started[:1]
    table = world.turn.table
    assert (table.connections.by_id, table.connections.by_client) == ({}, {})
    assert len(table.by_id) == 2
    with refused(437):
        client.refresh(600)
    for other in others:
        assert other.refresh(600) == 600


def test_tcp_allocation_whose_socket_is_opened_while_media_only_is_set_ends(world: World) -> None:
    world.opening_is_slow = True
    made = stream_client(world)
    made.challenge_take(made.exchange(Method.ALLOCATE, [TCP]))
    signed = made.signed([TCP])
    made.transmit(message_encode(Method.ALLOCATE, Kind.REQUEST, signed, key=made.key))
    assert len(world.opening) == 1
    media_only_set(world)
    world.open_all()
    world.pass_seconds(0)
    assert world.ended == world.started
    assert len(world.ended) == 1
    assert world.turn.table.ports.taken_count == 0


def test_many_tcp_allocations_end_in_steps_and_get_no_peer_meanwhile() -> None:
    world = World(settings_make(tcp_relay=True, relay_ports=(50000, 50999)))
    clients = [stream_client(world, ("192.0.2.7", port)) for port in range(1, 2 * AT_ONCE_MAX)]
    for made in clients:
        made.request(Method.ALLOCATE, [TCP])
        made.permit(PEER)
    media_only_set(world)
    assert len(world.ended) == AT_ONCE_MAX
    alive = list(world.turn.table.by_id.values())
    for allocation in alive:
        assert world.peer_connects(allocation, PEER) is None
    for made in clients:
        connect_ask(made)
    refusals = [answer(made).error_code for made in clients]
    assert sorted(refusals) == [403] * len(alive) + [437] * AT_ONCE_MAX
    assert world.connecting == []
    world.pass_seconds(0)
    assert not world.turn.table.by_id


def test_datagram_methods_are_refused_on_a_tcp_allocation_and_connect_on_others(
    world: World, client: FakeClient
) -> None:
    client.permit(PEER)
    with refused(403):
        client.bind(0x4000, PEER)
    client.send(PEER, b"x")
    client.transmit(PAIR.pack(0x4000, 1) + b"x")
    assert world.to_peers == []
    other = stream_client(world, DATA_CLIENT)
    other.allocate()
    connect_ask(other)
    assert answer(other).error_code == 400


def test_deadlines_of_closed_connections_are_swept_out(world: World, client: FakeClient) -> None:
    client.permit(PEER)
    (allocation,) = world.started
    for _ in range(300):
        connection = world.peer_connects(allocation, PEER)
        assert connection is not None
        world.perform(world.turn.connection_lost(connection))
    assert len(world.turn.table.connections._deadlines) < 100
    assert world.peer_connects(allocation, PEER) is not None
    world.pass_seconds(31)
    assert not world.turn.table.connections.by_id
