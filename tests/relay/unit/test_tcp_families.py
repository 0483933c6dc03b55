"""TCP allocations with a relayed address of each family: one of them may end before the other."""

from __future__ import annotations

from tests.relay.fake_link import PEER, RELAYED_HOST, FakeClient, World, settings_make
from tests.relay.unit.test_families import IPV6, PEER6, RELAYED_HOST6
from tests.relay.unit.test_tcp_allocations import (
    DATA_CLIENT,
    TCP,
    answer,
    bind,
    connect_ask,
    stream_client,
)
from tests.turn_client import Attribute, Method, message_decode

NO_LIFETIME = (Attribute.LIFETIME, bytes(4))


def dual_connected() -> tuple[World, FakeClient]:
    """A client with connections of both families, one of them bound."""
    world = World(settings_make(tcp_relay=True, relay_addresses=(RELAYED_HOST, RELAYED_HOST6)))
    client = stream_client(world)
    client.request(Method.ALLOCATE, [TCP, (Attribute.ADDITIONAL_ADDRESS_FAMILY, IPV6)])
    connection_ids = []
    for peer in (PEER, PEER6):
        connect_ask(client, peer)
        world.perform(world.turn.peer_connected(world.connecting[-1], world.now))
        connection_ids.append(answer(client).attributes[Attribute.CONNECTION_ID])
    bind(stream_client(world, DATA_CLIENT), connection_ids[-1])
    return world, client


def test_connections_of_a_family_end_with_its_relayed_address() -> None:
    world, client = dual_connected()
    connect_ask(client, ("2a00:1450::77", 5000))  # its peer has not accepted
    client.request(Method.REFRESH, [NO_LIFETIME, (Attribute.REQUESTED_ADDRESS_FAMILY, IPV6)])
    assert [found.peer[0] for found in world.closed] == [PEER6[0], "2a00:1450::77"]
    assert message_decode(client.arrived.popleft()).error_code == 447
    (allocation,) = world.started
    assert [found.peer for found in world.turn.table.connections.of_allocation(allocation)] == [
        PEER
    ]
    assert not world.turn.table.connections.by_client


def test_connections_of_a_family_end_when_its_lifetime_does() -> None:
    world, client = dual_connected()
    bind(stream_client(world, ("192.0.2.7", 40002)), world.connecting[0].value)
    ipv4 = (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x01\0\0\0")
    client.request(Method.REFRESH, [(Attribute.LIFETIME, (1200).to_bytes(4, "big")), ipv4])
    world.pass_seconds(601)
    assert [found.peer for found in world.closed] == [PEER6]
    assert not world.ended
