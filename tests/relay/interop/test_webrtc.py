"""A relay-only connection opens between ICE and WebRTC peers with the API's answer, unedited.

And what the relay wrote down about it equals, to the byte, what the peers sent and got.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pytest_django import Settings

from relay.metering.records import SessionRecord, UsageRecord
from tests.certificates import Files
from tests.relay.api.client import Api, customer_make
from tests.relay.interop.authority import libwebrtc_trust
from tests.relay.interop.journal import records_read
from tests.relay.interop.peers import aioice_exchange, aiortc_exchange, libwebrtc_exchange
from tests.relay.interop.servers import HOST, Server
from tests.relay.interop.tap import tapped

pytestmark = [pytest.mark.interop, pytest.mark.django_db]

Exchange = Callable[[dict[str, Any], list[bytes]], Coroutine[Any, Any, list[bytes]]]
MESSAGES = [secrets.token_bytes(size) for size in (1, 160, 1200, 16_000)] * 5
DATAGRAMS = [message[:1200] for message in MESSAGES]
# TLS needs the name: libwebrtc looks for none but names in a certificate.
NAME = "localhost"
EXCHANGES = pytest.mark.parametrize(
    "exchange", [aiortc_exchange, libwebrtc_exchange], ids=["aiortc", "libwebrtc"]
)


def answer_minted(settings: Settings, port: int) -> tuple[dict[str, Any], str]:
    """The API's answer for a server at `port`, and the project's public id."""
    settings.TURN_HOST, settings.TURN_PORT = HOST, port
    api = Api(customer_make())
    answer: dict[str, Any] = api.mint(ttl=600, label="call").json
    return answer, api.customer.project.public_id


@EXCHANGES
def test_data_channel_opens_with_the_answer_as_it_is(
    server: Server, settings: Settings, exchange: Exchange
) -> None:
    answer, _ = answer_minted(settings, server.port)
    assert asyncio.run(exchange(answer, MESSAGES)) == MESSAGES


@EXCHANGES
def test_counters_equal_what_the_peers_sent_to_the_byte(
    relay: Server, settings: Settings, exchange: Exchange
) -> None:
    with tapped(relay.address) as tap:
        answer, project = answer_minted(settings, tap.port)
        assert asyncio.run(exchange(answer, MESSAGES)) == MESSAGES
        relay.stop()
    records = records_read(relay.home)
    sessions = {each.client_port: each for each in records if isinstance(each, SessionRecord)}
    flows = {flow.port: flow for flow in tap.flows.values() if flow.payable() != (0, 0)}
    assert len(flows) == 2
    assert set(sessions) == set(flows)
    data_bytes = 0
    for port, session in sessions.items():
        assert session.project == project
        assert session.client_address == HOST
        usage = [
            each
            for each in records
            if isinstance(each, UsageRecord) and each.allocation == session.allocation
        ]
        last = usage[-1]
        assert last.ended
        assert (last.client_received_total, last.client_sent_total) == flows[port].payable()
        assert sum(each.client_sent for each in usage) == last.client_sent_total
        assert sum(each.client_received for each in usage) == last.client_received_total
        data_bytes += last.peer_sent_total
    assert data_bytes > 2 * sum(map(len, MESSAGES))


@pytest.mark.parametrize(
    ("exchange", "messages"),
    [
        (aioice_exchange, DATAGRAMS),
        (aiortc_exchange, MESSAGES),
        (libwebrtc_exchange, MESSAGES),
    ],
    ids=["aioice", "aiortc", "libwebrtc"],
)
@pytest.mark.parametrize(
    ("scheme", "transport", "known"),
    [("turn", "udp", "udp"), ("turn", "tcp", "tcp"), ("turns", "tcp", "tls")],
    ids=["udp", "tcp", "tls"],
)
def test_connection_opens_over_every_transport(
    relay: Server,
    certificate: Files,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    exchange: Exchange,
    messages: list[bytes],
    scheme: str,
    transport: str,
    known: str,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    libwebrtc_trust(certificate[0])
    answer, _ = answer_minted(settings, relay.port)
    answer["iceServers"] = answer["iceServers"][1:]
    answer["iceServers"][0]["urls"] = [f"{scheme}:{NAME}:{relay.port}?transport={transport}"]
    assert asyncio.run(exchange(answer, messages)) == messages
    relay.stop()
    sessions = [each for each in records_read(relay.home) if isinstance(each, SessionRecord)]
    assert len(sessions) >= 2
    assert {each.transport for each in sessions} == {known}
