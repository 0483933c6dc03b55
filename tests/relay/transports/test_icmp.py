"""ICMP errors about peers, as the kernel reports them: RFC 8656 section 11.5."""

from __future__ import annotations

import socket
import struct

import pytest

from relay.core.addresses import SockAddress
from tests.relay.fake_link import FakeClient
from tests.relay.transports.relayed_world import RelayedWorld
from tests.relay.transports.rig import PATIENCE_SECONDS, RunningRelay
from tests.relay.transports.test_relayed import DUAL
from tests.skips import skip
from tests.turn_client import Attribute, Method, message_decode

PEER, PEER6 = ("127.0.0.1", 5999), ("::1", 5999)
UNPERMITTED = ("127.0.0.7", 5999)
REPORTER = "127.0.0.9"  # has no permission, and needs none
UDP, TCP = socket.IPPROTO_UDP, socket.IPPROTO_TCP
RFC_4884_LENGTH = 0x05000000


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def packet_head(source: SockAddress, destination: SockAddress, protocol: int) -> bytes:
    """What an ICMP error quotes: the head of the packet that it is about."""
    ports = struct.pack("!HHHH", source[1], destination[1], 8, 0)
    if ":" in source[0]:
        packed = (socket.inet_pton(socket.AF_INET6, host) for host, _ in (source, destination))
        return struct.pack("!IHBB16s16s", 6 << 28, 8, protocol, 64, *packed) + ports
    packed = (socket.inet_aton(host) for host, _ in (source, destination))
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, protocol, 0, *packed)
    return head + ports


def report(
    about: SockAddress,
    relayed: SockAddress,
    icmp: tuple[int, int, int],
    *,
    reporter: str = REPORTER,
    protocol: int = UDP,
) -> None:
    """A router tells of a packet from a relayed address: type, code, and 32 bits."""
    ipv6 = ":" in about[0]
    family, kind = (socket.AF_INET6, "ipv6-icmp") if ipv6 else (socket.AF_INET, "icmp")
    try:
        raw = socket.socket(family, socket.SOCK_RAW, socket.getprotobyname(kind))
    except PermissionError:
        skip("an ICMP error from elsewhere needs CAP_NET_RAW")
    quoted = packet_head(relayed, about, protocol)
    message = struct.pack("!BBHI", icmp[0], icmp[1], 0, icmp[2]) + quoted
    if not ipv6:  # for IPv6 the kernel does it
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    with raw:
        raw.bind((reporter, 0))
        raw.sendto(message, (relayed[0], 0))


def told(world: RelayedWorld, client: FakeClient, count: int) -> list[tuple[SockAddress, str]]:
    """The errors that the client hears of, once there are so many: about whom, and the value."""
    world.drain_until(lambda: len(client.arrived) >= count)
    while client.arrived:
        client.message_take(message_decode(client.arrived.popleft()))
    return [(peer, value.hex()) for peer, value in client.icmp]


def test_icmp_error_is_judged_by_whom_it_is_about_and_not_by_who_reports_it(
    world: RelayedWorld,
) -> None:
    client = world.client()
    relayed = client.request(Method.ALLOCATE, DUAL).addresses(Attribute.XOR_RELAYED_ADDRESS)[0]
    client.permit((PEER[0], 0))
    report(UNPERMITTED, relayed, (3, 1, 0), reporter=PEER[0])
    report(PEER, relayed, (12, 0, 0))
    report(PEER, relayed, (3, 1, 0), protocol=TCP)
    report(PEER, (relayed[0], relayed[1] ^ 1), (3, 1, 0))
    report(PEER, relayed, (3, 4, 1400))
    report(PEER, relayed, (11, 0, 0))
    assert told(world, client, 2) == [(PEER, "0000060400000578"), (PEER, "0000160000000000")]
    assert world.turn.dropped["no permission"] == 1


def test_extension_of_an_icmpv6_error_is_no_mtu(world: RelayedWorld) -> None:
    client = world.client()
    relayed = client.request(Method.ALLOCATE, DUAL).addresses(Attribute.XOR_RELAYED_ADDRESS)[1]
    client.permit((PEER6[0], 0))
    report(PEER6, relayed, (1, 4, RFC_4884_LENGTH), reporter="::1")
    # An MTU that the kernel has no use for: this is everybody's loopback.
    report(PEER6, relayed, (2, 0, 0x20000), reporter="::1")
    assert told(world, client, 2) == [(PEER6, "0000020400000000"), (PEER6, "0000040000020000")]


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "dtls"])
def test_icmp_error_reaches_the_client_over_every_transport(
    relay: RunningRelay, transport: str
) -> None:
    with relay.client(transport) as client:
        client.allocate()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((PEER[0], 0))
            nobody = peer.getsockname()
        client.bind(0x4000, nobody)
        client.socket.settimeout(PATIENCE_SECONDS)
        client.send_channel(0x4000, b"nobody there")
        client.message_take(message_decode(client.datagram_receive()))
        assert client.icmp == [(nobody, bytes.fromhex("0000060300000000"))]
