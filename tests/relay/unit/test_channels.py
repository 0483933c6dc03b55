"""How long a channel lasts, what it brings with it, and whose it is: RFC 8656 section 12."""

from __future__ import annotations

import pytest

from tests.relay.expectations import refused
from tests.relay.fake_link import PEER, World, credential_make
from tests.turn_client import PAIR, Attribute, Attributes, Method

CHANNEL = 0x4000


def test_channel_that_is_bound_again_lasts_ten_minutes_from_then() -> None:
    world = World()
    client = world.client()
    client.allocate(3600)
    client.bind(CHANNEL, PEER)
    world.pass_seconds(599)
    client.bind(CHANNEL, PEER)
    world.pass_seconds(299)
    client.permit(PEER)
    world.pass_seconds(299)
    client.permit(PEER)
    client.send_channel(CHANNEL, b"late")  # 598 s later
    assert [data for _, _, data in world.to_peers] == [b"late"]
    world.pass_seconds(2)
    client.send_channel(CHANNEL, b"too late")
    assert len(world.to_peers) == 1


def test_data_refreshes_neither_permission_nor_channel() -> None:
    for renewed in (False, True):
        world = World()
        client = world.client()
        port = client.allocate(3600)[1]
        client.bind(CHANNEL, PEER)
        for _ in range(13):
            world.pass_seconds(50)
            client.send(PEER, b"indication")
            client.send_channel(CHANNEL, b"channel")
            world.from_peer(port, PEER, b"in")
            if renewed:
                client.permit(PEER)
        data = [data for _, _, data in world.to_peers]
        # Both end by the time they had at first: the permission after 300 s, the channel after 600.
        assert data.count(b"channel") == (11 if renewed else 5)
        assert data.count(b"indication") == (13 if renewed else 5)


def test_channel_installs_and_refreshes_the_permission_of_its_peers_address() -> None:
    world = World()
    client = world.client()
    port = client.allocate(3600)[1]
    other = (PEER[0], 6000)
    client.bind(CHANNEL, PEER)
    world.pass_seconds(250)
    client.bind(CHANNEL, PEER)
    world.pass_seconds(299)
    world.from_peer(port, other, b"in")
    assert client.receive() == (other, b"in")
    world.pass_seconds(1)
    world.from_peer(port, other, b"in")
    assert not client.arrived


def test_channel_number_means_nothing_in_another_allocation() -> None:
    world = World()
    clients = world.client(), world.client(("192.0.2.8", 40000)), world.client(("192.0.2.9", 40000))
    ports = [client.port() for client in clients]
    peers = PEER, ("8.8.4.4", 5000)
    for client, peer in zip(clients, peers, strict=False):
        client.bind(CHANNEL, peer)
    for client in clients:  # the third one has no channel
        client.send_channel(CHANNEL, b"out")
    assert world.to_peers == [(ports[0], peers[0], b"out"), (ports[1], peers[1], b"out")]


def test_channels_and_permissions_end_with_their_allocation() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.bind(CHANNEL, PEER)
    client.refresh(0)
    port = client.port()
    client.send_channel(CHANNEL, b"out")
    client.send(PEER, b"out")
    world.from_peer(port, PEER, b"in")
    assert world.to_peers == []
    assert not client.arrived
    client.bind(CHANNEL + 1, PEER)  # nor is the peer bound to the number that it had


BINDING: Attributes = [
    (Attribute.CHANNEL_NUMBER, PAIR.pack(CHANNEL, 0)),
    (Attribute.XOR_PEER_ADDRESS, PEER),
]


@pytest.mark.parametrize("method", [Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_nobody_but_its_user_opens_an_allocation_to_a_peer(method: Method) -> None:
    world = World()
    client = world.client()
    port = client.port()
    assert client.exchange(method, BINDING).error_code == 401
    forged = client.exchange(method, client.signed(BINDING), key=b"not the key that it is")
    assert forged.error_code == 401
    other = world.client(credential=credential_make(world.now, project="prj_other"))
    with refused(441):  # from the very five-tuple
        other.request(method, BINDING)
    world.from_peer(port, PEER, b"in")
    other.send_channel(CHANNEL, b"out")
    assert not other.arrived
    assert world.to_peers == []
    world.clients[client.address] = client
    client.request(method, BINDING)
    world.from_peer(port, PEER, b"in")
    assert client.arrived
