"""Clients who take all that they can get leave what the journal needs: usage is written down."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack

import pytest

from relay.metering.records import UsageRecord
from tests.relay.attacks.conftest import StartRelay
from tests.relay.attacks.observe import descriptors, log_lines, udp_socket
from tests.relay.interop.journal import records_read
from tests.relay.interop.servers import HOST, Server
from tests.relay.transports.rig import until
from tests.stream_client import StreamClient
from tests.turn_client import Attribute, Method, TurnClient, TurnError, allocate_attributes

CHANNEL = 0x4000
FOR_CLIENTS = 120
CONNECTIONS = 200
PAYLOAD_BYTES = 1000
MESSAGES = 50
TCP = (Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")
RESERVE = (Attribute.EVEN_PORT, b"\x80")


def descriptors_limit(relay: Server) -> int:
    """Let it have some more than it has now; how many at most."""
    limit = descriptors(relay) + FOR_CLIENTS
    _, hard = resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (limit, hard))
    return limit


@pytest.mark.parametrize("pairs", [False, True], ids=["ports", "pairs"])
def test_allocations_beyond_all_descriptors_cost_no_usage(
    relay_start: StartRelay, *, pairs: bool
) -> None:
    relay = relay_start(UNAUTHENTICATED_ANSWERS_PER_SECOND=0)
    with ExitStack() as stack:
        peer = stack.enter_context(udp_socket())
        call = stack.enter_context(relay.client())
        call.allocate()
        call.bind(CHANNEL, peer.getsockname())
        limit = descriptors_limit(relay)
        made = 0
        for _ in range(2 * FOR_CLIENTS):
            client = stack.enter_context(relay.client())
            if not allocates(client, pairs=pairs):
                break
            made += 1
        assert descriptors(relay) > limit - limit // 8 - 2  # as many as there may be
        assert made > FOR_CLIENTS / 3
        for _ in range(MESSAGES):
            call.send_channel(CHANNEL, bytes(PAYLOAD_BYTES))
            peer.recv(2 * PAYLOAD_BYTES)
        assert until(lambda: sent_to_peers(relay) == MESSAGES * PAYLOAD_BYTES, 20)
        relay.process.kill()
    assert sent_to_peers(relay) == MESSAGES * PAYLOAD_BYTES
    assert "journal_failing" not in {line["event"] for line in log_lines(relay)}


def test_connections_beyond_all_descriptors_are_closed_and_cost_no_usage(
    relay_start: StartRelay,
) -> None:
    relay = relay_start(UNAUTHENTICATED_ANSWERS_PER_SECOND=0)
    limit = descriptors_limit(relay)
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            host = f"127.77.{number % 50}.1"  # each address may have so many only
            silent = socket.create_connection(relay.address, 5, source_address=(host, 0))
            stack.enter_context(silent)
        assert until(lambda: descriptors(relay) > limit - limit // 8 - 2, 10)
        assert descriptors(relay) < limit - limit // 8 + 8
        with relay.client() as client, pytest.raises(TurnError, match="508"):
            client.allocate()
    assert until(lambda: descriptors(relay) < limit / 2, 20)
    with relay.client() as client:
        client.allocate()
    assert "journal_failing" not in {line["event"] for line in log_lines(relay)}


def test_tcp_allocations_and_their_peers_leave_the_last_descriptors(
    relay_start: StartRelay,
) -> None:
    relay = relay_start(UNAUTHENTICATED_ANSWERS_PER_SECOND=0)
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(StreamClient(relay.address, *relay.credential())) for _ in range(2)
        )
        relayed = first.request(Method.ALLOCATE, [TCP]).address(Attribute.XOR_RELAYED_ADDRESS)
        first.permit((HOST, 1))
        second.challenge_take(second.exchange(Method.ALLOCATE, [TCP]))
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        descriptors_limit(relay)
        while allocates(stack.enter_context(relay.client()), pairs=False):
            pass
        with pytest.raises(TurnError, match="508"):
            second.request(Method.ALLOCATE, [TCP])
        with pytest.raises(TurnError, match="447"):
            first.request(Method.CONNECT, [(Attribute.XOR_PEER_ADDRESS, listener.getsockname())])
        peer = stack.enter_context(socket.create_connection(relayed, 5))
        assert peer.recv(1) == b""


def allocates(client: TurnClient, *, pairs: bool) -> bool:
    """Whether there is still an allocation to be had; where not, the answer is 508."""
    try:
        client.request(
            Method.ALLOCATE, [*allocate_attributes(), RESERVE] if pairs else allocate_attributes()
        )
    except TurnError as error:
        assert error.code == 508
        return False
    return True


def sent_to_peers(relay: Server) -> int:
    """Bytes, as far as they are written down."""
    records = records_read(relay.home)
    return sum(each.peer_sent for each in records if isinstance(each, UsageRecord))
