"""A hundred thousand allocate-and-delete cycles leave the port pool full (Security 12)."""

from __future__ import annotations

import pytest

from relay.core.limits import ProjectLimits
from tests.relay.fake_link import World, credential_make, settings_make
from tests.turn_client import UDP_PROTOCOL, Attribute, Kind, Method, message_encode

CYCLES = 100_000
EVEN_PORT = 0x0018
RESERVATION_TOKEN = 0x0022
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
DELETE: list[tuple[int, bytes]] = [(Attribute.LIFETIME, bytes(4))]


@pytest.mark.timeout(900)
def test_a_hundred_thousand_cycles_leave_the_port_pool_full() -> None:
    world = World(settings_make(project_limits=ProjectLimits(allocations_max=2)))
    client = world.client(credential=credential_make(world.now, ttl_seconds=29 * 24 * 3600))
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    wanted: tuple[list[tuple[int, bytes]], ...] = ([], [(EVEN_PORT, b"\0")], [(EVEN_PORT, b"\x80")])
    table, key = world.turn.table, client.key

    def ask(method: Method, attributes: list[tuple[int, bytes]]) -> None:
        signed = client.signed(attributes)
        client.transmit(message_encode(method, Kind.REQUEST, signed, key=key))

    for cycle in range(CYCLES):
        ask(Method.ALLOCATE, [REQUESTED, *wanted[cycle % 3]])
        assert len(table.by_id) == 1
        token = world.started[-1].reservation_token
        ask(Method.REFRESH, DELETE)
        if token and cycle % 2:  # every other reservation is claimed, the rest expires
            ask(Method.ALLOCATE, [REQUESTED, (RESERVATION_TOKEN, token)])
            assert len(table.by_id) == 1
            ask(Method.REFRESH, DELETE)
        world.pass_seconds(0.01 if cycle % 100 else 40)
        for kept in (client.arrived, client.sent, world.started, world.ended, world.events):
            kept.clear()
        if not cycle % 50:  # time passes: nonces grow old
            client.key = b""
            client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    world.pass_seconds(60)
    assert table.ports.taken_count == 0
    assert table.entitlements.held_count("prj_a") == 0
    assert not world.open_ports
