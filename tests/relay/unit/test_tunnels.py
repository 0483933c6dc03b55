"""Nothing goes round and round through a tunnel: RFC 8656 section 21.4."""

from __future__ import annotations

import pytest

from relay.core.policy import PeerPolicyRules
from relay.core.requests.exchange import TUNNELLED_CLIENT
from tests.relay.expectations import refused
from tests.relay.fake_link import RELAYED_HOST, World, credential_make, settings_make
from tests.relay.unit.test_families import RELAYED_HOST6
from tests.turn_client import UDP_PROTOCOL, Attribute, Method

TEREDO = ["2001::1", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff"]
SIX_TO_FOUR = ["2002:808:808::1", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
NEITHER = ["2001:1:0:ffff::1", "2000:ffff::1", "2003::1", "192.0.2.7", "32.1.0.0"]
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
IPV6 = (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")
EMPTY_TICKET = (Attribute.MOBILITY_TICKET, b"")

tunnelled = pytest.mark.parametrize("host", [*TEREDO, *SIX_TO_FOUR])


@tunnelled
def test_client_behind_a_tunnel_gets_no_allocation_and_its_owner_can_see_why(host: str) -> None:
    world = World()
    client = world.client((host, 40000))
    with refused(403):
        client.allocate()
    assert world.turn.table.ports.taken_count == 0
    (found,) = world.refusals_explain("crd_b", world.now)
    assert found.rule == TUNNELLED_CLIENT


@pytest.mark.parametrize("host", NEITHER)
def test_neighbours_of_tunnels_get_one(host: str) -> None:
    World().client((host, 40000)).allocate()


@tunnelled
def test_no_allocation_moves_to_a_tunnel(host: str) -> None:
    world = World()
    credential = credential_make(world.now)
    client = world.client(credential=credential)
    answer = client.request(Method.ALLOCATE, [REQUESTED, EMPTY_TICKET])
    ticket = (Attribute.MOBILITY_TICKET, answer.attributes[Attribute.MOBILITY_TICKET])
    with refused(403):
        world.client((host, 40000), credential).request(Method.REFRESH, [ticket])
    assert world.turn.table.moving == {}
    world.client(("192.0.2.99", 40000), credential).request(Method.REFRESH, [ticket])


@tunnelled
@pytest.mark.parametrize("opened", [(), ("2001::/32", "2002::/16"), ("::/0", "0.0.0.0/0")])
def test_tunnel_is_no_peer_whatever_the_operator_has_opened(
    host: str, opened: tuple[str, ...]
) -> None:
    world = World(
        settings_make(
            relay_addresses=(RELAYED_HOST, RELAYED_HOST6),
            peer_rules=PeerPolicyRules(allowed=opened),
        )
    )
    client = world.client()
    client.request(Method.ALLOCATE, [REQUESTED, IPV6])
    with refused(403):
        client.bind(0x4000, (host, 5000))
    with refused(403):
        client.permit((host, 5000))
    client.send((host, 5000), b"x")
    assert world.to_peers == []
