"""Our own client speaks the standard: with coturn as with the relay, over every transport."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from relay.metering.records import SessionRecord, UsageRecord
from tests.relay.interop.journal import records_read
from tests.relay.interop.servers import HOST, PROJECT, Server
from tests.relay.transports.rig import DtlsClient
from tests.stream_client import StreamClient
from tests.turn_client import TurnClient, TurnError

pytestmark = pytest.mark.interop

CHANNEL = 0x4ABC
LIFETIME_SECONDS = 700
CLIENTS: dict[str, Callable[..., TurnClient]] = {
    "udp": TurnClient,
    "tcp": StreamClient,
    "tls": partial(StreamClient, tls=True),
    "dtls": DtlsClient,
}


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind((HOST, 0))
        endpoint.settimeout(10)
        yield endpoint


@pytest.mark.parametrize("transport", CLIENTS)
def test_data_passes_in_both_forms_and_directions(
    server: Server, peer: socket.socket, transport: str
) -> None:
    with CLIENTS[transport](server.address, *server.credential()) as client:
        relayed = client.allocate()
        client.permit(peer.getsockname())
        client.send(peer.getsockname(), b"indication")
        assert peer.recvfrom(100) == (b"indication", relayed)
        peer.sendto(b"back", relayed)
        assert client.receive() == (peer.getsockname(), b"back")
        client.bind(CHANNEL, peer.getsockname())
        client.send_channel(CHANNEL, b"channel")
        assert peer.recvfrom(100) == (b"channel", relayed)
        # No padding in streams: that of coturn is not zero, and the client looks.
        peer.sendto(b"back once more!!", relayed)
        assert client.receive() == (CHANNEL, b"back once more!!")
        assert client.refresh(LIFETIME_SECONDS) == LIFETIME_SECONDS
        assert client.refresh(0) == 0


def test_wrong_password_gets_no_allocation(server: Server) -> None:
    username, password = server.credential()
    with TurnClient(server.address, username, password[::-1]) as client:
        with pytest.raises(TurnError) as refused:
            client.allocate()
        assert refused.value.code == 401


def test_counters_equal_what_was_sent_to_the_byte(relay: Server, peer: socket.socket) -> None:
    with relay.client() as client:
        relayed = client.allocate()
        # The first request and its 401 came before authentication.
        sent, received = -client.sent[0], -client.received[0]
        client.bind(CHANNEL, peer.getsockname())
        for size in (0, 1, 3, 1200):
            client.send_channel(CHANNEL, bytes(size))
            client.send(peer.getsockname(), bytes(size))
            peer.recv(2000)
            peer.recv(2000)
            peer.sendto(bytes(size), relayed)
            assert client.receive() == (CHANNEL, bytes(size))
        client.refresh(0)
        sent, received = sent + sum(client.sent), received + sum(client.received)
    relay.stop()
    records = records_read(relay.home)
    (session,) = (each for each in records if isinstance(each, SessionRecord))
    assert (session.client_address, session.client_port) == (HOST, client.local[1])
    assert session.project == PROJECT
    last = [each for each in records if isinstance(each, UsageRecord)][-1]
    assert last.ended
    assert last.client_received_total == sent
    assert last.client_sent_total == received
    assert last.peer_sent_total == 2 * 1204
    assert last.peer_received_total == 1204
