"""Calls that move while they run: RFC 8016."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from relay.config import ClientLimits
from tests.certificates import Files
from tests.relay.transports.rig import (
    HOSTS,
    PATIENCE_SECONDS,
    DtlsClient,
    RunningRelay,
    dtls_connection,
    relay_running,
    until,
)
from tests.turn_client import UDP_PROTOCOL, Attribute, Method, TurnClient

CHANNEL = 0x4000
TICKET = Attribute.MOBILITY_TICKET


def close(client: TurnClient) -> None:
    """Close a client's connection, so that the relay hears of it."""
    if isinstance(client, DtlsClient):
        client.dtls.shutdown()
        client.flush()
    else:
        client.socket.close()


def strangers_are(relay: RunningRelay, expected: int) -> bool:
    """Whether so many connections have no allocation."""
    return relay.ask(lambda runner: runner.clients.streams.strangers) == expected


@pytest.mark.parametrize("transport", ["tcp", "tls", "dtls"])
def test_call_goes_on_elsewhere_once_its_old_connection_is_closed(
    relay: RunningRelay, transport: str
) -> None:
    with (
        relay.client(transport) as home,
        relay.client("udp") as away,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind((HOSTS[4], 0))
        peer.settimeout(PATIENCE_SECONDS)
        requested = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
        answer = home.request(Method.ALLOCATE, [requested, (TICKET, b"")])
        relayed = answer.address(Attribute.XOR_RELAYED_ADDRESS)
        home.bind(CHANNEL, peer.getsockname())
        away.username, away.password = home.username, home.password
        away.request(Method.REFRESH, [(TICKET, answer.attributes[TICKET])])
        peer.sendto(b"to the old place", relayed)
        assert home.receive() == (CHANNEL, b"to the old place")
        close(home)
        assert until(lambda: relay.ask(lambda runner: not runner._turn.table.moving))
        peer.sendto(b"to the new place", relayed)
        assert away.receive() == (CHANNEL, b"to the new place")
        assert relay.allocations() == 1


def test_session_that_takes_the_place_of_another_one_is_sent_nothing_of_its_call(
    relay: RunningRelay,
) -> None:
    with (
        relay.client("dtls") as home,
        relay.client("udp") as away,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind((HOSTS[4], 0))
        requested = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
        answer = home.request(Method.ALLOCATE, [requested, (TICKET, b"")])
        relayed = answer.address(Attribute.XOR_RELAYED_ADDRESS)
        home.bind(CHANNEL, peer.getsockname())
        assert isinstance(home, DtlsClient)
        home.dtls = dtls_connection()
        home.handshake()
        assert until(lambda: relay.ask(lambda runner: len(runner._turn.table.adrift)) == 1)
        peer.sendto(b"to whoever is there", relayed)
        assert until(
            lambda: relay.ask(lambda runner: runner._turn.dropped["client unreachable"]) == 1
        )
        away.username, away.password = home.username, home.password
        away.request(Method.REFRESH, [(TICKET, answer.attributes[TICKET])])
        away.refresh(600)
        peer.sendto(b"to the new place", relayed)
        assert away.receive() == (CHANNEL, b"to the new place")


@pytest.mark.parametrize("transport", ["tcp", "tls", "dtls"])
def test_new_connection_of_a_call_that_may_move_is_not_idle(
    tmp_path: Path, certificate: Files, transport: str
) -> None:
    limits = ClientLimits(idle_seconds=0.5)
    with (
        relay_running(tmp_path, certificate, limits=limits) as relay,
        relay.client("udp") as home,
        relay.client(transport) as away,
        relay.client(transport) as stranger,
    ):
        requested = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
        answer = home.request(Method.ALLOCATE, [requested, (TICKET, b"")])
        away.username, away.password = home.username, home.password
        away.request(Method.REFRESH, [(TICKET, answer.attributes[TICKET])])
        stranger.binding()
        assert until(lambda: relay.connections() + relay.sessions() == 1)
        assert away.refresh(600) == 600


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_connections_that_a_call_has_left_are_strangers_again(
    tmp_path: Path, certificate: Files, transport: str
) -> None:
    limits = ClientLimits(strangers_per_address_max=2)
    with (
        relay_running(tmp_path, certificate, limits=limits) as relay,
        relay.client("udp") as home,
        ExitStack() as stack,
    ):
        requested = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
        ticket = home.request(Method.ALLOCATE, [requested, (TICKET, b"")]).attributes[TICKET]
        for strangers in (1, 2):
            for means in (transport, "udp"):
                away = stack.enter_context(relay.client(means))
                away.username, away.password = home.username, home.password
                ticket = away.request(Method.REFRESH, [(TICKET, ticket)]).attributes[TICKET]
            assert until(partial(strangers_are, relay, strangers))
        stack.enter_context(relay.connect())
        assert until(lambda: relay.dropped("too many clients") == 1)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_connection_whose_allocation_was_deleted_may_have_another_one(
    tmp_path: Path, certificate: Files, transport: str
) -> None:
    limits = ClientLimits(strangers_per_address_max=1)
    with (
        relay_running(tmp_path, certificate, limits=limits) as relay,
        relay.client(transport) as client,
    ):
        client.allocate()
        client.refresh(0)
        assert until(lambda: strangers_are(relay, 1))
        client.allocate()
        assert strangers_are(relay, 0)
        assert client.refresh(600) == 600
