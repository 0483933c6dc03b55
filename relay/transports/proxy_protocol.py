"""The PROXY protocol, versions 1 and 2: a balancer says whose connection it passes on.

    PROXY TCP4 192.0.2.7 198.51.100.1 40000 3478\\r\\n                            version 1
    12 bytes of signature | 0x2, command | family, protocol | length | addresses, TLVs   version 2

Only believed where it comes from networks that the operator names (haproxy's proxy-protocol.txt).
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from struct import Struct
from typing import NamedTuple

from relay.core.addresses import SockAddress
from relay.core.errors import MalformedMessageError

HEADER_LENGTH_MAX = 1024  # addresses take 36 bytes; the rest is for a balancer's TLVs
_V1_LENGTH_MAX = 107
_V1_START = b"PROXY "
_V1_LINE = re.compile(rb"PROXY TCP[46] ([0-9a-fA-F.:]+) [0-9a-fA-F.:]+ (\d{1,5}) \d{1,5}")
_V1_UNKNOWN = b"PROXY UNKNOWN"
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEADER = Struct("!12sBBH")
_V2_LOCAL = 0x20
_V2_PROXY = 0x21
# By family and protocol: the length of an address. TCP over IPv4, TCP over IPv6.
_V2_ADDRESS_LENGTHS = {0x11: 4, 0x21: 16}


class ProxyHeader(NamedTuple):
    """A header's length in bytes, and the client; None where the connection is the balancer's."""

    length: int
    client: SockAddress | None


def proxy_header_read(data: bytes) -> ProxyHeader | None:
    """Read the header that a stream begins with.

    Returns:
        The header, or None where it is not whole yet.

    Raises:
        MalformedMessageError: the stream begins otherwise.
    """
    if data.startswith(_V2_SIGNATURE[: len(data)]):
        return _v2_read(data)
    if data.startswith(_V1_START[: len(data)]):
        return _v1_read(data)
    raise MalformedMessageError("no PROXY protocol header")


def _v1_read(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:_V1_LENGTH_MAX].partition(b"\r\n")
    if not end:
        if len(data) >= _V1_LENGTH_MAX:
            raise MalformedMessageError("PROXY protocol line without an end")
        return None
    length = len(line) + len(end)
    if line.startswith(_V1_UNKNOWN):
        return ProxyHeader(length, None)
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise MalformedMessageError("PROXY protocol line that cannot be read")
    return ProxyHeader(length, (_host(match[1].decode()), _port(int(match[2]))))


def _v2_read(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_HEADER.size:
        return None
    _, command, family, body_length = _V2_HEADER.unpack_from(data)
    length = _V2_HEADER.size + body_length
    if command not in (_V2_LOCAL, _V2_PROXY) or length > HEADER_LENGTH_MAX:
        raise MalformedMessageError("PROXY protocol header that cannot be read")
    if len(data) < length:
        return None
    if command == _V2_LOCAL:
        return ProxyHeader(length, None)
    size = _V2_ADDRESS_LENGTHS.get(family)
    if size is None or body_length < 2 * size + 4:
        raise MalformedMessageError("PROXY protocol header of another transport")
    body = data[_V2_HEADER.size : length]
    host = str(ip_address(body[:size]))
    return ProxyHeader(length, (_host(host), _port(int.from_bytes(body[2 * size :][:2], "big"))))


def _host(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise MalformedMessageError("PROXY protocol header with no address") from error
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _port(port: int) -> int:
    if not 0 < port <= 0xFFFF:
        raise MalformedMessageError("PROXY protocol header with no port")
    return port
