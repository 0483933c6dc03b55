"""Transport addresses and their form on the wire (RFC 8489 sections 14.1 and 14.2).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |0 0 0 0 0 0 0 0|    Family     |            X-Port             |
    |            X-Address (32 bits or 128 bits)                    |

Inside the core an address is its packed bytes (4 or 16, network order) where it is judged, and the
plain `(host, port)` tuple that the socket calls use where data is moved: no object per packet.
"""

from __future__ import annotations

from ipaddress import ip_address
from struct import Struct
from typing import NamedTuple, TypeAlias

from relay.core.errors import MalformedMessageError

FAMILY_IPV4 = 0x01
FAMILY_IPV6 = 0x02
MAGIC_COOKIE = b"\x21\x12\xa4\x42"
MAGIC_COOKIE_HIGH = 0x2112
_MAGIC_COOKIE_NUMBER = int.from_bytes(MAGIC_COOKIE, "big")
_HEAD = Struct("!BBH")  # zero, family, port
_XOR_IPV4 = Struct("!BBHI")
SPOOFABLE_TRANSPORT = "udp"  # who sends may name any address as his own

SockAddress: TypeAlias = tuple[str, int]


class FiveTuple(NamedTuple):
    """What identifies an allocation (RFC 8656 section 2): transport, client and server."""

    transport: str
    client: SockAddress
    server: SockAddress

    @property
    def is_stream(self) -> bool:
        """Whether the client has a TCP connection, under TLS or not."""
        return self.transport in ("tcp", "tls")


class PeerAddress(NamedTuple):
    """A peer's transport address in both forms: packed for the policy, sockaddr for the socket."""

    packed: bytes
    port: int

    @property
    def family(self) -> int:
        """FAMILY_IPV4 or FAMILY_IPV6, by the length of the address."""
        return FAMILY_IPV4 if len(self.packed) == 4 else FAMILY_IPV6

    @property
    def sockaddr(self) -> SockAddress:
        """The `(host, port)` form."""
        return host_format(self.packed), self.port


def host_format(packed: bytes) -> str:
    """The text of a packed address: dotted quad, or RFC 5952 for 16 bytes."""
    if len(packed) == 4:
        return f"{packed[0]}.{packed[1]}.{packed[2]}.{packed[3]}"
    return str(ip_address(packed))


def host_pack(host: str) -> bytes:
    """The 4 or 16 bytes of an address literal.

    Raises:
        ValueError: not an IPv4 or IPv6 literal.
    """
    return ip_address(host).packed


def host_family(host: str) -> int:
    """FAMILY_IPV4 or FAMILY_IPV6 of an address literal: the packet path asks this."""
    return FAMILY_IPV6 if ":" in host else FAMILY_IPV4


def address_encode(address: SockAddress) -> bytes:
    """The value of a MAPPED-ADDRESS, RESPONSE-ORIGIN or OTHER-ADDRESS attribute: 8 or 20 bytes."""
    packed = host_pack(address[0])
    return bytes((0, host_family(address[0]))) + address[1].to_bytes(2, "big") + packed


def xor_address_encode(address: SockAddress, transaction_id: bytes) -> bytes:
    """The value of an XOR-MAPPED-, XOR-RELAYED- or XOR-PEER-ADDRESS attribute.

    Args:
        address: host literal and port.
        transaction_id: the message's 12 bytes; they take part for IPv6 only.

    Returns:
        8 bytes for IPv4, 20 for IPv6.
    """
    host, port = address
    if ":" in host:
        packed = _xor(host_pack(host), transaction_id)
        return _HEAD.pack(0, FAMILY_IPV6, port ^ MAGIC_COOKIE_HIGH) + packed
    # What a socket said is not validated: 3 us faster.
    number = int.from_bytes(bytes(map(int, host.split("."))), "big")
    return _XOR_IPV4.pack(0, FAMILY_IPV4, port ^ MAGIC_COOKIE_HIGH, number ^ _MAGIC_COOKIE_NUMBER)


def xor_address_decode(value: bytes, transaction_id: bytes) -> PeerAddress:
    """Read an XOR-PEER-ADDRESS (or its siblings).

    Raises:
        MalformedMessageError: unknown family, or a length that is not the family's.
    """
    if len(value) == 8 and value[1] == FAMILY_IPV4:
        packed = _xor(value[4:], b"")
    elif len(value) == 20 and value[1] == FAMILY_IPV6:
        packed = _xor(value[4:], transaction_id)
    else:
        raise MalformedMessageError("address attribute with a family and length that do not match")
    return PeerAddress(packed, int.from_bytes(value[2:4], "big") ^ MAGIC_COOKIE_HIGH)


def _xor(packed: bytes, transaction_id: bytes) -> bytes:
    mask = MAGIC_COOKIE + transaction_id
    length = len(packed)
    number = int.from_bytes(packed, "big") ^ int.from_bytes(mask[:length], "big")
    return number.to_bytes(length, "big")
