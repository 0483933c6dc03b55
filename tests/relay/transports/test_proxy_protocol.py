"""The PROXY protocol: whom it is believed from, and what it says."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import ClientLimits
from relay.core.errors import MalformedMessageError
from relay.transports.proxy_protocol import proxy_header_read
from tests.certificates import Files
from tests.relay.transports.rig import HOSTS, RunningRelay, relay_running, until
from tests.stream_client import StreamClient

V2 = b"\r\n\r\n\0\r\nQUIT\n"
V1_IPV4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 3478\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 3478\r\n"


def v2(family: int, body: bytes, command: int = 0x21) -> bytes:
    return V2 + struct.pack("!BBH", command, family, len(body)) + body


V2_IPV4 = v2(0x11, socket.inet_aton("192.0.2.7") + bytes(4) + struct.pack("!HH", 40000, 3478))
V2_IPV6 = v2(
    0x21,
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + bytes(16)
    + struct.pack("!HH", 40000, 3478)
    + b"\x04\x00\x03TLV",
)
V2_MAPPED = v2(
    0x21,
    socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7")
    + bytes(16)
    + struct.pack("!HH", 40000, 3478),
)
GOOD = [
    (V1_IPV4, ("192.0.2.7", 40000)),
    (V1_IPV6, ("2001:db8::7", 40000)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (V2_IPV4, ("192.0.2.7", 40000)),
    (V2_IPV6, ("2001:db8::7", 40000)),
    (V2_MAPPED, ("192.0.2.7", 40000)),
    (v2(0, b"", command=0x20), None),
]


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_header_says_the_client_and_where_it_ends(
    header: bytes, client: tuple[str, int] | None
) -> None:
    assert proxy_header_read(header + b"rest") == (len(header), client)
    for length in range(len(header)):
        assert proxy_header_read(header[:length]) is None


@pytest.mark.parametrize(
    "header",
    [
        b"\x00\x01\x00\x00",
        b"PROXY TCP4 192.0.2.700 198.51.100.1 40000 3478\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 0 3478\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 99999 3478\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY " + b"x" * 101,
        v2(0x12, bytes(12)),
        v2(0x11, bytes(11)),
        v2(0x11, bytes(12), command=0x31),
        v2(0x11, bytes(2000)),
    ],
)
def test_other_beginnings_are_malformed(header: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        proxy_header_read(header)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2, V2 + b"\x21\x11\0\x0c"]), st.binary())
def test_junk_is_malformed_or_waits(start: bytes, junk: bytes) -> None:
    try:
        header = proxy_header_read(start + junk)
    except MalformedMessageError:
        return
    assert header is None or header.length <= len(start + junk)


@pytest.fixture
def behind(tmp_path: Path, certificate: Files) -> Iterator[RunningRelay]:
    """A relay that believes balancers on 127.0.0.0/8, and lets one address have two strangers."""
    limits = ClientLimits(strangers_per_address_max=2)
    with relay_running(tmp_path, certificate, limits=limits, trusted=("127.0.0.0/8",)) as running:
        yield running


def through(relay: RunningRelay, header: bytes, *, tls: bool = False) -> StreamClient:
    server = HOSTS[4], relay.config.listen_port
    return StreamClient(server, *relay.credential(), tls=tls, before=header)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("header", [V1_IPV4, V2_IPV4], ids=["v1", "v2"])
def test_client_behind_a_balancer_has_its_own_address(
    behind: RunningRelay, header: bytes, tls: bool
) -> None:
    with through(behind, header, tls=tls) as client:
        assert client.binding() == ("192.0.2.7", 40000)
        client.allocate()  # its nonces are bound to that address
        assert client.refresh(600) == 600


def test_balancer_must_say_whose_connection_it_is(behind: RunningRelay) -> None:
    with through(behind, b"") as client, pytest.raises(OSError):
        client.binding()


def test_strangers_are_counted_by_the_address_that_the_balancer_says(
    behind: RunningRelay,
) -> None:
    headers = [
        b"PROXY TCP4 192.0.2.%d 198.51.100.1 40000 3478\r\n" % number for number in range(1, 9)
    ]
    clients = [through(behind, header) for header in headers]
    for client in clients:
        client.binding()
    more = [through(behind, V1_IPV4.replace(b"40000", b"4000%d" % each)) for each in range(1, 4)]
    assert until(lambda: behind.dropped("too many clients") == 2)
    for client in [*clients, *more]:
        client.socket.close()


def test_same_client_twice_is_the_later_one(behind: RunningRelay) -> None:
    with through(behind, V1_IPV4) as first, through(behind, V1_IPV4) as second:
        first.allocate()
        second.binding()
        assert behind.allocations() == 0
        with pytest.raises(OSError):
            first.refresh(600)


def test_client_that_is_no_balancer_is_not_believed(relay: RunningRelay) -> None:
    with through(relay, V1_IPV4) as client, pytest.raises(OSError):
        client.binding()
