"""A new access token in the place of an old one, and when not: RFC 7635 section 9, ADR 13."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.core.access_tokens import token_credential
from relay.core.holdings import Holdings
from relay.core.limits import ProjectLimits
from relay.shared_holdings import SharedHoldings
from tests.relay.expectations import refused
from tests.relay.fake_link import PEER
from tests.relay.tokens import NEXT_KEY, TokenClient, token_make, world_make
from tests.turn_client import Attribute, Kind, Method, message_decode, message_encode


@pytest.fixture(params=["alone", "one of several processes"])
def shared(request: pytest.FixtureRequest) -> Iterator[Holdings | None]:
    """What the relay's processes hold together; None where there is one only."""
    if request.param == "alone":
        yield None
        return
    holdings = SharedHoldings(processes=1, allocations_max=10)
    yield holdings
    holdings.close()


def signed_refresh(client: TokenClient) -> bytes:
    """A Refresh under the token that the client has now, for somebody to deliver later."""
    client.method = Method.REFRESH
    signed = client.signed([])
    return message_encode(Method.REFRESH, Kind.REQUEST, signed, key=client.key)


@pytest.mark.parametrize("age_seconds", [1, 2000])
def test_old_token_does_not_come_back_with_a_refresh_that_is_late(age_seconds: int) -> None:
    world = world_make()
    client = TokenClient(world, token_make(world.now - age_seconds))
    client.allocate()
    late = signed_refresh(client)
    renewed = token_make(world.now, key=NEXT_KEY, mac_key=b"w" * 20)
    client.token_take(renewed, kid=NEXT_KEY.kid, mac_key=b"w" * 20)
    client.refresh(600)
    (allocation,) = world.open_ports.values()
    world.pass_seconds(2)  # within five seconds of its making a token's end moves with the time
    for _ in range(2):
        world.from_client(client.address, late)
        assert message_decode(client.datagram_receive()).error_code == 441
        assert (allocation.kid, allocation.credential) == (NEXT_KEY.kid, token_credential(renewed))
        client.permit(PEER)
    assert client.refresh(600) == 600


def test_token_that_was_replaced_takes_no_place_again() -> None:
    world = world_make()
    client = TokenClient(world)
    client.allocate()
    old = client.token
    for lifetime_seconds in (3600, 3000):  # also one that ends sooner: clients get what they get
        client.token_take(token_make(world.now, lifetime_seconds=lifetime_seconds))
        assert client.refresh(600) == 600
    latest = client.token
    client.token_take(old)
    with refused(441):
        client.refresh(600)
    client.token_take(latest)
    assert client.refresh(600) == 600


@pytest.mark.parametrize(
    ("attribute", "code"),
    [
        ((Attribute.REQUESTED_ADDRESS_FAMILY, b"\2\0\0\0"), 443),
        ((Attribute.REQUESTED_ADDRESS_FAMILY, b"\1"), 400),
        ((Attribute.LIFETIME, b"\0"), 400),
        ((Attribute.MOBILITY_TICKET, b"forged"), 400),
    ],
)
def test_refresh_that_is_refused_leaves_the_old_token(
    attribute: tuple[int, bytes], code: int
) -> None:
    world = world_make()
    client = TokenClient(world)
    client.allocate()
    (allocation,) = world.open_ports.values()
    before = allocation.kid, allocation.credential, allocation.token_ends_at
    old = client.token
    client.token_take(
        token_make(world.now + 1, key=NEXT_KEY, mac_key=b"w" * 20),
        kid=NEXT_KEY.kid,
        mac_key=b"w" * 20,
    )
    with refused(code):
        client.request(Method.REFRESH, [attribute])
    assert (allocation.kid, allocation.credential, allocation.token_ends_at) == before
    client.token_take(old)
    client.permit(PEER)


def test_renewal_counts_against_the_quota_of_the_new_token(shared: Holdings | None) -> None:
    world = world_make(shared)
    renewed = token_make(world.now + 1, key=NEXT_KEY, mac_key=b"w" * 20)
    credential = token_credential(renewed)
    control = world.turn.control
    world.perform(control.credential_limit("prj_a", credential, 4e9, world.now, allocations_max=1))
    clients = [TokenClient(world, address=("192.0.2.7", port)) for port in (1, 2, 3)]
    for client in clients:
        client.allocate()
    old = clients[2].token
    for client in clients:
        client.token_take(renewed, kid=NEXT_KEY.kid, mac_key=b"w" * 20)
    clients[0].refresh(600)
    for client in clients[1:]:
        with refused(486):
            client.refresh(600)
    found = world.refusals_explain(credential, world.now, project="prj_a")
    assert {refusal.rule for refusal in found} == {"the credential holds 1 of 1 allocations"}
    assert [each.credential for each in world.started].count(credential) == 1
    assert clients[1].refresh(0) == 0  # hanging up needs no room
    clients[2].token_take(old)
    assert clients[2].refresh(600) == 600
    assert clients[2].refresh(0) == 0
    assert clients[0].refresh(0) == 0
    world.client().allocate()


def test_renewal_takes_no_more_of_the_projects_quota(shared: Holdings | None) -> None:
    world = world_make(shared, project_limits=ProjectLimits(allocations_max=1))
    client = TokenClient(world)
    client.allocate()
    client.token_take(token_make(world.now + 1))
    assert client.refresh(600) == 600
    with refused(486):
        world.client(("192.0.2.7", 1)).allocate()
    client.refresh(0)
    world.client(("192.0.2.7", 1)).allocate()


def test_renewal_for_a_token_that_may_hold_nothing_is_486(shared: Holdings | None) -> None:
    world = world_make(shared)
    client = TokenClient(world)
    client.allocate()
    renewed = token_make(world.now + 1)
    limited = world.turn.control.credential_limit(
        "prj_a", token_credential(renewed), 4e9, world.now, allocations_max=0
    )
    world.perform(limited)
    client.token_take(renewed)
    with refused(486):
        client.refresh(600)
