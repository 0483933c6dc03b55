"""What the connection log is told of a user who was accepted: once, whatever became of the rest."""

from __future__ import annotations

import pytest

from relay.core.limits import ProjectLimits
from tests.relay.expectations import refused
from tests.relay.fake_link import PEER, World, settings_make
from tests.turn_client import (
    UDP_PROTOCOL,
    Attribute,
    Attributes,
    Kind,
    Method,
    message_decode,
    message_encode,
)

ACCEPTED = ("accepted", "prj_a")
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)


def asked(world: World, attributes: Attributes) -> int:
    """The error code of an Allocate with good credentials; 0 where it is granted."""
    client = world.client()
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    return client.exchange(Method.ALLOCATE, client.signed(attributes), key=client.key).error_code


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ([], 400),
        ([REQUESTED, (0x7ABC, b"")], 420),
        ([REQUESTED, (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")], 440),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x84\0\0\0")], 442),
        ([REQUESTED, (Attribute.RESERVATION_TOKEN, bytes(8))], 508),
    ],
)
def test_user_of_a_request_that_is_refused_was_accepted(attributes: Attributes, code: int) -> None:
    world = World()
    assert asked(world, attributes) == code
    assert world.events == [ACCEPTED]
    assert not world.started


def test_user_whose_quota_is_reached_was_accepted() -> None:
    world = World(settings_make(project_limits=ProjectLimits(allocations_max=0)))
    assert asked(world, [REQUESTED]) == 486
    assert world.events == [ACCEPTED]


def test_user_for_whom_no_socket_could_be_opened_was_accepted() -> None:
    world = World()
    world.no_descriptors = True
    assert asked(world, [REQUESTED]) == 508
    assert world.events == [ACCEPTED]


def test_user_is_accepted_once_however_often_the_request_comes() -> None:
    world = World()
    client = world.client()
    client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    datagram = message_encode(
        Method.ALLOCATE, Kind.REQUEST, client.signed([REQUESTED]), key=client.key
    )
    world.opening_is_slow = True
    for _ in range(3):  # while its socket is being opened
        client.transmit(datagram)
    world.open_all()
    for _ in range(3):  # and after
        client.transmit(datagram)
    answers = [message_decode(each) for each in client.arrived]
    assert [each.kind for each in answers] == [Kind.SUCCESS] * 4
    assert world.events == [ACCEPTED]


def test_requests_within_an_allocation_are_no_events() -> None:
    world = World()
    client = world.client()
    client.allocate()
    client.permit(PEER)
    with refused(437):
        client.allocate()
    client.refresh(0)
    assert world.events == [ACCEPTED]
