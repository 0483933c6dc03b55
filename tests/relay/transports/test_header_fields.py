"""Which fields of IP headers the relay carries over: none (RFC 8656 sections 13 to 16)."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.relay.transports.dual import allocate, dual_relay_running
from tests.relay.transports.rig import HOSTS, RunningRelay
from tests.skips import skip

CHANNEL = 0x4001
PATIENCE_SECONDS = 30
# From <linux/in.h> and <linux/in6.h>; the module `socket` lacks them.
IP_RECVTTL = 12
IPV6_FLOWINFO = 11
IPV6_FLOWINFO_SEND = 33
FLOW_LABEL_MASK = 0xFFFFF
ETHERTYPE_IPV4 = 0x0800
IPV4_DF = 0x40


class Fields(NamedTuple):
    """What of a header must not be carried over."""

    traffic_class: int  # DSCP and ECN
    hops: int
    flow_label: int  # 0 for IPv4


MARK = Fields(46 << 2 | 1, 17, 0x12345)  # expedited forwarding, ECT(1)


@pytest.fixture
def dual(tmp_path: Path) -> Iterator[RunningRelay]:
    with dual_relay_running(tmp_path) as running:
        yield running


@contextmanager
def endpoint(family: int) -> Iterator[socket.socket]:
    """A UDP socket that tells the header fields of what it receives."""
    kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    with socket.socket(kind, socket.SOCK_DGRAM) as made:
        made.bind((HOSTS[family], 0))
        made.settimeout(PATIENCE_SECONDS)
        fields_tell(made)
        yield made


def fields_tell(made: socket.socket) -> None:
    if made.family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        made.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWINFO, 1)


def marked(made: socket.socket, destination: tuple[str, int]) -> None:
    """Connect, and put the mark on all that is sent."""
    if made.family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, MARK.traffic_class)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, MARK.hops)
        made.connect(destination)
        return
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, MARK.traffic_class)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, MARK.hops)
    made.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1)
    made.connect((*destination, MARK.flow_label, 0))


def received(made: socket.socket) -> tuple[bytes, Fields]:
    """The next datagram, and the fields of its header."""
    data, ancillary, _, _ = made.recvmsg(65536, 256)
    values = {kind: value for _, kind, value in ancillary}
    if made.family == socket.AF_INET:
        hops = int.from_bytes(values[socket.IP_TTL], sys.byteorder)
        return data, Fields(values[socket.IP_TOS][0], hops, 0)
    traffic_class, hops = values[socket.IPV6_TCLASS][0], values[socket.IPV6_HOPLIMIT][0]
    flow = int.from_bytes(values[IPV6_FLOWINFO], "big") & FLOW_LABEL_MASK
    return data, Fields(traffic_class, hops, flow)


def is_the_systems_own(fields: Fields, family: int) -> bool:
    """Whether these are the fields of a datagram for which nobody asked anything."""
    with endpoint(family) as sender, endpoint(family) as receiver:
        sender.sendto(b"plain", receiver.getsockname())
        _, usual = received(receiver)
    return fields[:2] == usual[:2] and fields.flow_label != MARK.flow_label


@pytest.mark.parametrize("family", HOSTS)
def test_mark_is_seen_where_nothing_is_between(family: int) -> None:
    with endpoint(family) as sender, endpoint(family) as receiver:
        marked(sender, receiver.getsockname()[:2])
        sender.send(b"marked")
        data, fields = received(receiver)
    assert data == b"marked"
    assert fields == (MARK if family == 6 else MARK._replace(flow_label=0))
    assert not is_the_systems_own(fields, family)


@pytest.mark.parametrize("peer_family", HOSTS)
@pytest.mark.parametrize("client_family", HOSTS)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_peer_sees_none_of_the_clients_header_fields(
    dual: RunningRelay, transport: str, client_family: int, peer_family: int
) -> None:
    with dual.client(transport, client_family) as client, endpoint(peer_family) as peer:
        if transport == "udp":
            marked(client.socket, (HOSTS[client_family], dual.config.listen_port))
        else:
            level, option = {
                4: (socket.IPPROTO_IP, socket.IP_TOS),
                6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
            }[client_family]
            client.socket.setsockopt(level, option, MARK.traffic_class)
        allocate(client, peer_family)
        client.bind(CHANNEL, peer.getsockname()[:2])
        client.send_channel(CHANNEL, b"channel")
        client.send(peer.getsockname()[:2], b"indication")
        for expected in (b"channel", b"indication"):
            data, fields = received(peer)
            assert data == expected
            assert is_the_systems_own(fields, peer_family)


@pytest.mark.parametrize("peer_family", HOSTS)
@pytest.mark.parametrize("client_family", HOSTS)
def test_client_sees_none_of_the_peers_header_fields(
    dual: RunningRelay, client_family: int, peer_family: int
) -> None:
    with dual.client("udp", client_family) as client, endpoint(peer_family) as peer:
        relayed = allocate(client, peer_family)
        fields_tell(client.socket)
        marked(peer, relayed)
        client.permit(peer.getsockname()[:2])
        for expected in (b"indication", b"channel"):
            peer.send(expected)
            data, fields = received(client.socket)
            assert expected in data
            assert is_the_systems_own(fields, client_family)
            client.bind(CHANNEL, peer.getsockname()[:2])


# --- what only a sniffer sees ---------------------------------------------------------------------


@pytest.fixture
def sniffer() -> Iterator[socket.socket]:
    """Every IPv4 packet on loopback, from its header on."""
    try:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPE_IPV4))
    except PermissionError:
        skip("seeing the headers needs CAP_NET_RAW")
    with made:
        made.bind(("lo", ETHERTYPE_IPV4))
        made.settimeout(1)
        yield made


def packet_to(
    sniffer: socket.socket, port: int, ending: bytes, send: Callable[[], object]
) -> bytes:
    """A packet to a port that ends so; sent anew where what others send leaves it no room."""
    for _ in range(PATIENCE_SECONDS):
        send()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            try:
                packet, address = sniffer.recvfrom(65535)
            except TimeoutError:
                break
            at = (packet[0] & 15) * 4 + 2
            found = int.from_bytes(packet[at : at + 2], "big"), address[2]
            if found == (port, socket.PACKET_HOST) and packet.endswith(ending):
                return packet
    pytest.fail("no such packet was seen")


def test_df_is_clear_towards_the_client(dual: RunningRelay, sniffer: socket.socket) -> None:
    with dual.client("udp") as client, endpoint(4) as peer:
        relayed = allocate(client, 4)
        port = client.socket.getsockname()[1]
        client.permit(peer.getsockname())
        for data in (b"indicate", b"channels"):  # neither needs padding
            send = partial(peer.sendto, data, relayed)
            assert not packet_to(sniffer, port, data, send)[6] & IPV4_DF
            client.bind(CHANNEL, peer.getsockname())


def test_traffic_class_of_a_peer_is_not_that_of_the_clients_connection(
    dual: RunningRelay, sniffer: socket.socket
) -> None:
    with dual.client("tcp") as client, endpoint(4) as peer:
        relayed = allocate(client, 4)
        marked(peer, relayed)
        client.bind(CHANNEL, peer.getsockname())
        port = client.socket.getsockname()[1]
        mark = b"%08d" % port
        send = partial(peer.send, mark)
        assert packet_to(sniffer, relayed[1], mark, send)[1] == MARK.traffic_class
        of_the_connection = packet_to(sniffer, port, mark, send)[1]
        assert of_the_connection >> 2 == 0
        assert of_the_connection & 3 != MARK.traffic_class & 3  # ECN of TCP's own there may be
