"""Drain in the core: no new allocations; what lives goes on until it ends, or is ended."""

from __future__ import annotations

import pytest

from relay.core.control import DRAIN_STEP, DRAINING
from tests.relay.fake_link import PEER, START, World, settings_make
from tests.turn_client import Kind, TurnError, message_decode

CHANNEL = 0x4000


def test_drained_relay_refuses_new_allocations_and_says_why_to_who_may_know() -> None:
    world = World()
    world.perform(world.turn.control.drain(None, world.now))
    client = world.client()
    with pytest.raises(TurnError) as refused:
        client.allocate()
    assert refused.value.code == 508
    (refusal,) = world.refusals_explain("crd_b", world.now)
    assert (refusal.code, refusal.rule) == (508, DRAINING)
    assert world.turn.control.is_drained
    assert world.turn.table.ports.taken_count == 0


def test_call_goes_on_while_its_relay_is_drained() -> None:
    world = World()
    client = world.client()
    port = client.port()
    world.perform(world.turn.control.drain(None, world.now))
    client.bind(CHANNEL, PEER)
    client.permit(("8.8.4.4", 5000))
    client.send_channel(CHANNEL, b"out")
    world.from_peer(port, PEER, b"in")
    assert client.receive() == (CHANNEL, b"in")
    assert world.to_peers == [(port, PEER, b"out")]
    for _ in range(20):
        world.pass_seconds(500)
        assert client.refresh(600) == 600
    assert world.turn.control.is_draining
    assert not world.turn.control.is_drained
    client.refresh(0)
    assert world.turn.control.is_drained


def test_repeated_allocate_gets_its_answer_while_draining(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    client = world.client()
    datagrams: list[bytes] = []
    transmit = client.transmit

    def noted(datagram: bytes) -> None:
        datagrams.append(datagram)
        transmit(datagram)

    monkeypatch.setattr(client, "transmit", noted)
    client.allocate()
    world.perform(world.turn.control.drain(None, world.now))
    transmit(datagrams[-1])
    assert message_decode(client.datagram_receive()).kind is Kind.SUCCESS


def test_undrained_relay_allocates_again() -> None:
    world = World()
    world.perform(world.turn.control.drain(world.now + 10, world.now))
    world.turn.control.undrain()
    client = world.client()
    client.allocate()
    world.pass_seconds(60)
    assert not world.ended
    assert not world.turn.control.is_draining


def test_drain_ends_what_is_left_exactly_at_its_deadline() -> None:
    world = World()
    client = world.client()
    client.allocate()
    world.perform(world.turn.control.drain(START + 100, world.now))
    world.pass_seconds(99.9)
    assert not world.ended
    world.pass_seconds(0.1)
    assert len(world.ended) == 1
    assert world.turn.control.is_drained
    deadline = world.turn.next_deadline()
    assert deadline is None or deadline > world.now


def test_deadline_of_a_drain_can_be_moved_and_taken_back() -> None:
    world = World()
    world.client().allocate()
    world.perform(world.turn.control.drain(START + 10, world.now))
    world.perform(world.turn.control.drain(None, world.now))
    world.pass_seconds(60)
    assert not world.ended
    world.perform(world.turn.control.drain(START + 60, world.now))
    assert len(world.ended) == 1


def test_deadline_follows_the_time_of_day() -> None:
    world = World()
    world.client().allocate()
    world.perform(world.turn.control.drain(START + 100, world.now))
    world.turn.unix_offset_seconds = 50.0
    world.pass_seconds(50)
    assert len(world.ended) == 1


def test_socket_that_opens_after_the_deadline_is_closed_again() -> None:
    world = World()
    world.opening_is_slow = True
    client = world.client()
    with pytest.raises(TurnError):  # it waits for its answer still
        client.allocate()
    world.perform(world.turn.control.drain(START + 1, world.now))
    assert not world.turn.control.is_drained
    world.pass_seconds(5)
    world.open_all()
    world.pass_seconds(0)
    assert len(world.ended) == 1
    assert world.turn.control.is_drained


def test_many_allocations_are_ended_some_at_a_time() -> None:
    count = 2 * DRAIN_STEP + 1
    world = World(settings_make(relay_ports=(50000, 50999)))
    for number in range(count):
        world.client(("192.0.2.7", 10000 + number)).allocate()
    world.perform(world.turn.control.drain(world.now, world.now))
    steps = [len(world.ended)]
    while (deadline := world.turn.next_deadline()) is not None and deadline <= world.now:
        world.perform(world.turn.handle_deadline(world.now))
        steps.append(len(world.ended))
    assert steps == [DRAIN_STEP, 2 * DRAIN_STEP, count]
    assert world.turn.control.drain_ended_count == count
    world.turn.control.undrain()
    world.perform(world.turn.control.drain(None, world.now))
    assert world.turn.control.drain_ended_count == 0
    assert world.turn.table.ports.taken_count == 0
