"""Metrics of a real relay are what its clients sent and received, while their calls run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics

from relay.version import VERSION
from relay.watching.metrics import METRICS
from tests.relay.interop.servers import HOST
from tests.relay.watching.conftest import StartRelay
from tests.relay.watching.scrape import Scrape, Watched
from tests.turn_client import Method, TurnClient, TurnError, credentials_mint

TRANSPORTS = ("udp", "tcp", "tls", "dtls")
FAMILIES = {4: "ipv4", 6: "ipv6"}
CHANNEL = 0x4001
DATA = b"x" * 1001
TIMES = 7


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind((HOST, 0))
        endpoint.settimeout(5)
        yield endpoint


def talk(client: TurnClient, peer: socket.socket, times: int = TIMES) -> int:
    """Data both ways and one Send indication, none of it lost; the bytes of each direction."""
    for _ in range(times):
        client.send_channel(CHANNEL, DATA)
        _, relayed = peer.recvfrom(2048)
        peer.sendto(DATA, relayed)
        client.receive()
    client.send(peer.getsockname(), b"indicated")
    assert peer.recv(100) == b"indicated"
    return times * len(DATA)


def allocate(client: TurnClient, peer: socket.socket) -> tuple[int, int]:
    """Ready to relay; how many messages came and went before anybody proved who he is."""
    client.allocate()
    client.bind(CHANNEL, peer.getsockname())
    return 1, 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bytes_and_packets_are_what_the_client_counted_while_it_runs(
    relay: Watched, peer: socket.socket, transport: str
) -> None:
    """And they are still there when it has ended."""
    for family, name in FAMILIES.items():
        way = {"transport": transport, "family": name}
        with relay.client(transport, family) as client:
            unmetered = allocate(client, peer)
            data = talk(client, peer)
            seen = relay.until(partial(lives, 1, way))
            expected = {
                "from_client": sum(client.sent[unmetered[0] :]),
                "to_client": sum(client.received[unmetered[1] :]),
                "to_peer": data + len(b"indicated"),
                "from_peer": data,
            }
            for direction, count in expected.items():
                assert seen("relayed_bytes_total", direction=direction, **way) == count
            packets = {"from_client": TIMES + 1, "from_peer": TIMES}
            for direction, count in packets.items():
                assert seen("relayed_packets_total", direction=direction, **way) == count
            client.refresh(0)
            refreshed = client.sent[-1]
            ended = relay.until(partial(lives, 0, way))
        expected["from_client"] += refreshed
        for direction in ("from_client", "from_peer", "to_peer"):
            assert ended("relayed_bytes_total", direction=direction, **way) == expected[direction]
        assert ended("allocations_started_total", **way) == 1
    now = relay.scrape()
    assert now("allocations_started_total") == len(FAMILIES)
    assert now("relayed_bytes_total", direction="from_peer") == len(FAMILIES) * TIMES * len(DATA)


def lives(count: int, way: dict[str, str], now: Scrape) -> bool:
    return now("allocations", **way) == count


def test_move_to_another_transport_takes_no_byte_along(relay: Watched, peer: socket.socket) -> None:
    """Counters never go down, and the sum is what was relayed."""
    ticket = (0x8030, b"")
    with relay.client("udp") as before, relay.client("tcp") as after:
        attributes = [(0x0019, b"\x11\0\0\0"), ticket]
        answer = before.request(Method.ALLOCATE, attributes)
        before.bind(CHANNEL, peer.getsockname())
        data = talk(before, peer)
        first = relay.until(lambda now: now("relayed_bytes_total", direction="from_peer") == data)
        after.realm, after.key = before.realm, before.key
        after.request(Method.REFRESH, [(0x8030, answer.attributes[0x8030])])
        after.request(Method.REFRESH, [])  # the first one from its new place ends the move
        after.send_channel(CHANNEL, DATA)
        _, relayed = peer.recvfrom(2048)
        peer.sendto(DATA, relayed)
        assert after.receive() == (CHANNEL, DATA)
        seen = relay.until(lambda now: now("allocations", transport="tcp") == 1)
    assert seen("allocations", transport="udp") == 0
    assert seen("relayed_bytes_total", direction="from_peer", transport="udp") == data
    assert seen("relayed_bytes_total", direction="from_peer", transport="tcp") == len(DATA)
    assert seen("relayed_packets_total", direction="from_client", transport="tcp") == 1
    for series, value in first.values.items():
        if series[0].endswith("_total"):
            assert seen.values[series] >= value, series


def test_messages_answers_and_outcomes_are_counted(relay: Watched, peer: socket.socket) -> None:
    start = relay.scrape()  # one Binding asked whether it is there
    username, password = relay.server.credential()
    with (
        relay.client("udp") as client,
        TurnClient(relay.server.address, username, password + "x") as wrong,
        TurnClient(relay.server.address, *expired(password_of=relay)) as late,
    ):
        client.binding()
        allocate(client, peer)
        talk(client, peer, 1)
        with pytest.raises(TurnError):
            client.bind(0x4002, peer.getsockname())  # that peer has another channel
        with pytest.raises(TurnError):
            client.permit(("10.1.2.3", 0))
        for refused in (wrong, late):
            with pytest.raises(TurnError):
                refused.allocate()
        # A wrong password is tried once more with the nonce that its 401 brings.
        allocates = 2 + len(wrong.sent) + len(late.sent)

        def since(now: Scrape, name: str, **labels: str) -> float:
            return now(name, **labels) - start(name, **labels)

        def all_came(now: Scrape) -> bool:
            return since(now, "messages_received_total", method="allocate") == allocates

        now = relay.until(all_came)
    assert since(now, "messages_received_total", method="binding", **{"class": "request"}) == 1
    assert since(now, "messages_received_total", method="channel_bind") == 2
    assert since(now, "messages_received_total", method="send", **{"class": "indication"}) == 1
    assert since(now, "success_responses_total", method="binding") == 1
    assert since(now, "success_responses_total", method="allocate") == 1
    assert since(now, "success_responses_total", method="channel_bind") == 1
    assert since(now, "error_responses_total", method="channel_bind", code="400") == 1
    assert since(now, "error_responses_total", method="create_permission", code="403") == 1
    assert since(now, "error_responses_total", method="allocate", code="401") == allocates - 1
    assert since(now, "error_responses_total") == allocates + 1
    assert now("authentications_total", outcome="accepted") == 1
    assert now("authentications_total", outcome="wrong_password") == len(wrong.sent) - 1
    assert now("authentications_total", outcome="expired") == len(late.sent) - 1


def expired(*, password_of: Watched) -> tuple[str, str]:
    """A credential that ended an hour ago."""
    username = f"{int(time.clock_gettime(time.CLOCK_REALTIME)) - 3600}:prj_aaaaaaaaaaaa/crd_a"
    return credentials_mint(password_of.server.secret, username)


def test_drops_ports_and_connections_are_counted(relay: Watched, peer: socket.socket) -> None:
    with relay.client("udp") as client, ExitStack() as stack:
        relayed = client.allocate()
        client.send_channel(0x4FFF, b"nobody has bound this")
        peer.sendto(b"nobody has permitted this", relayed)
        client.socket.send(b"\xff what is this?")
        dtls = stack.enter_context(relay.client("dtls"))
        tls = [stack.enter_context(relay.client("tls")) for _ in range(2)]
        tcp = [stack.enter_context(relay.client("tcp")) for _ in range(3)]
        bare = stack.enter_context(socket.create_connection(relay.server.address))
        for each in (dtls, *tls, *tcp):
            each.binding()
        connections = {"dtls": 1, "tls": 2, "tcp": 3, "opening": 1}

        def is_all_there(now: Scrape) -> bool:
            dropped = ("no_channel", "no_permission", "malformed")
            return all(now("dropped_total", reason=reason) == 1 for reason in dropped) and all(
                now("client_connections", transport=transport) == count
                for transport, count in connections.items()
            )

        now = relay.until(is_all_there)
        assert now("dropped_total") == 3
        assert now("ports", family="ipv4", state="in_use") == 1
        assert now("ports", family="ipv6", state="in_use") == 0
        low, high = 49152, 65535
        assert now("ports", family="ipv4") == now("ports", family="ipv6") == high - low + 1
        bare.close()
        client.refresh(0)
        relay.until(
            lambda now: (
                now("ports", state="in_use") == 0
                and now("client_connections", transport="opening") == 0
            )
        )


def test_process_and_journal_are_described(relay: Watched, peer: socket.socket) -> None:
    with ExitStack() as clients:

        def record_waits(now: Scrape) -> bool:
            if now("journal_records_waiting") >= 1:
                return True
            allocate(clients.enter_context(relay.client("udp")), peer)  # the last one was written
            return False

        relay.until(record_waits)
        now = relay.until(lambda now: now("journal_records_waiting") == 0)
    assert now("up") == now("journal_writable") == 1
    assert now("draining") == now("cut_off") == now("journal_records_lost_total") == 0
    assert now("build_info", version=VERSION) == 1
    assert 0 <= now("journal_sync_age_seconds") < 15
    assert 0 <= now("event_loop_longest_block_seconds") < 60
    pid = relay.server.process.pid
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert abs(now("process_resident_memory_bytes") / resident - 1) < 0.2
    assert 1 < now("process_open_fds") < now("process_max_fds")
    wall = time.clock_gettime(time.CLOCK_REALTIME)
    assert wall - 600 < now("process_start_time_seconds") < wall
    assert now("process_cpu_seconds_total") > 0


def test_number_of_series_is_the_same_for_many_users_peers_and_projects(relay: Watched) -> None:
    before = relay.scrape()
    with ExitStack() as stack:
        peers = [
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(5)
        ]
        for number, peer in enumerate(peers):
            peer.bind((f"127.0.1.{number + 1}", 0))
        for number in range(40):
            end = int(time.clock_gettime(time.CLOCK_REALTIME)) + 3600
            username = f"{end}:prj_{number:012}/crd_{number}/label-{number}"
            credential = credentials_mint(relay.server.secret, username)
            local = f"127.0.{2 + number}.1", 0  # a network of its own
            client = stack.enter_context(TurnClient(relay.server.address, *credential, local=local))
            client.allocate()
            client.permit(*(peer.getsockname() for peer in peers))
            for peer in peers:
                client.send(peer.getsockname(), b"hello")
            for refused in (("10.0.0.1", 0), (f"192.168.{number}.1", 0)):
                with pytest.raises(TurnError):
                    client.permit(refused)
        after = relay.until(lambda now: now("allocations") == 40)
    assert after("error_responses_total", code="403") == 80
    assert after.values.keys() == before.values.keys()
    assert len(after.values) < 400


def test_formats_are_what_prometheus_reads_and_every_metric_is_there(relay: Watched) -> None:
    text = relay.get("/metrics", accept="text/plain")
    assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    kinds = Scrape(text.body.decode()).kinds
    assert kinds == {metric.name: metric.kind for metric in METRICS}
    accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5"
    modern = relay.get("/metrics", accept=accept)
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    parsed = openmetrics.text_string_to_metric_families(modern.body.decode())  # type: ignore[no-untyped-call]
    families = {family.name for family in parsed}
    assert {name.removesuffix("_total") for name in kinds} == families
    assert modern.body.endswith(b"# EOF\n")


def test_peers_never_reach_the_metrics(relay_start: StartRelay) -> None:
    relay = relay_start(TCP_RELAY="on", ALLOWED_PEERS="127.0.0.0/8,::1/128")
    with relay.client("udp") as client:
        client.allocate()
        for host in (HOST, "::ffff:127.0.0.1"):
            with pytest.raises(TurnError) as refused:
                client.bind(CHANNEL, (host, relay.port))
            assert refused.value.code in (403, 443)
        client.permit((HOST, relay.port))  # an address alone: other ports may be peers
        client.send((HOST, relay.port), b"GET /metrics HTTP/1.0\r\n\r\n")
        relay.until(lambda now: now("dropped_total", reason="send_refused") == 1)
