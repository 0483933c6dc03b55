"""Which peer addresses may be reached: one door for every method that names a peer.

An open relay into the operator's own network is the classical fault of a TURN server, so every
special-purpose range is refused unless it was opened by name. Addresses that carry an IPv4 address
inside an IPv6 one are judged as both, and the stricter verdict holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_network

from relay.core.addresses import FAMILY_IPV6, SockAddress, host_family, host_pack

# The IANA special-purpose registries (RFC 6890 and what followed), plus multicast and what is
# deprecated: nothing here is a peer on the internet.
SPECIAL_PURPOSE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
    *("192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64"),
    *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16"),
    *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
)
# Teredo and 6to4: a packet to a tunnel's end may come back to us as many times as it has headers
# inside (RFC 8656 section 21.4). They are no peers whatever was opened, and no clients.
TUNNELS = ("2001::/32", "2002::/16")
PORT_MIN = 1024
AMPLIFIER_PORTS = frozenset({11211})  # memcached answers a few bytes with megabytes

_IPV4_MAPPED = bytes(10) + b"\xff\xff"
_IPV4_COMPATIBLE = bytes(12)
_NAT64 = b"\x00\x64\xff\x9b" + bytes(8)
_6TO4 = b"\x20\x02"
_IPV4_TRANSLATED = bytes(8) + b"\xff\xff\x00\x00"  # ::ffff:0:a.b.c.d (RFC 2765)
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # how interface ids begin (RFC 5214)


class Refusal(Enum):
    """The rule that refused a peer; for the operator, never for the client."""

    DENIED = "denied by the operator"
    SPECIAL_PURPOSE = "special-purpose range"
    OWN_ADDRESS = "an address of this server"
    PORT = "port not allowed"


@dataclass(frozen=True)
class PeerPolicyRules:
    """What the operator may set.

    Attributes:
        allowed: networks opened although they are special-purpose, as "127.0.0.0/8"; not `TUNNELS`.
        denied: networks refused although they are public; they win over `allowed`.
        own_addresses: the server's addresses; only relayed ports on them are peers, unless
            `allowed` opens them.
        own_endpoints: transport addresses of this service that are refused even where their
            network was opened: listeners, web, database, admin, metrics. 0.0.0.0 and :: stand
            for every address of this host.
        relay_ports: lowest and highest relayed port.
        hairpin: whether a relayed address of this server may be a peer.
    """

    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    own_addresses: tuple[str, ...] = ()
    own_endpoints: tuple[SockAddress, ...] = ()
    relay_ports: tuple[int, int] = (49152, 65535)
    hairpin: bool = True


class PeerPolicy:
    """The rules, compiled to integer ranges.

    Raises:
        ValueError: a network or address that cannot be read; the message names it.
    """

    def __init__(self, rules: PeerPolicyRules) -> None:
        self._allowed = _ranges(rules.allowed)
        self._denied = _ranges(rules.denied)
        self._special = _ranges(SPECIAL_PURPOSE)
        self._own = frozenset(_canonical(host_pack(host)) for host in rules.own_addresses)
        self._own_endpoints = frozenset(
            (_canonical(host_pack(host)), port) for host, port in rules.own_endpoints
        )
        self._own_ports = frozenset(
            port for host, port in rules.own_endpoints if not any(host_pack(host))
        )
        self._relay_port_min, self._relay_port_max = rules.relay_ports
        self._hairpin = rules.hairpin

    def refusal(self, packed: bytes, port: int | None) -> Refusal | None:
        """Judge one peer.

        Args:
            packed: 4 or 16 bytes.
            port: None where a method names an address only (CreatePermission).

        Returns:
            The rule that refuses it, or None.
        """
        canonical = _canonical(packed)
        for form in {packed, canonical}:
            if _contains(self._denied, form):
                return Refusal.DENIED
            if _contains(self._special, form) and not self._is_opened(form):
                return Refusal.SPECIAL_PURPOSE
        if self._is_own(canonical, port):
            return Refusal.OWN_ADDRESS
        if port is not None and (port < PORT_MIN or port in AMPLIFIER_PORTS):
            return Refusal.PORT
        return None

    def _is_opened(self, packed: bytes) -> bool:
        return _contains(self._allowed, packed) and not _contains(_TUNNELS, packed)

    def _is_own(self, canonical: bytes, port: int | None) -> bool:
        if (canonical, port) in self._own_endpoints:
            return True
        on_this_host = canonical in self._own or _contains(_LOOPBACK, canonical)
        if on_this_host and port in self._own_ports:
            return True
        if canonical not in self._own or _contains(self._allowed, canonical):
            return False
        if not self._hairpin:
            return True
        return port is not None and not self._relay_port_min <= port <= self._relay_port_max


def is_tunnelled(host: str) -> bool:
    """Whether an address literal is Teredo's or 6to4's."""
    return host_family(host) == FAMILY_IPV6 and _contains(_TUNNELS, host_pack(host))


def _canonical(packed: bytes) -> bytes:
    """The IPv4 address inside an IPv6 one, else the address itself."""
    if len(packed) == 4:
        return packed
    if packed.startswith((_IPV4_MAPPED, _NAT64)):
        return packed[12:]
    if packed.startswith(_IPV4_COMPATIBLE) and int.from_bytes(packed[12:], "big") > 1:
        return packed[12:]
    if packed.startswith(_6TO4):
        return packed[2:6]
    if packed.startswith(_IPV4_TRANSLATED) or packed[8:12] in _ISATAP:
        return packed[12:]
    return packed


_Ranges = dict[int, list[tuple[int, int]]]  # by length of the address in bytes


def _ranges(networks: Sequence[str]) -> _Ranges:
    ranges: _Ranges = {4: [], 16: []}
    for text in networks:
        try:
            network = ip_network(text)
        except ValueError as error:
            raise ValueError(f"peer policy: {error}; write it as 192.0.2.0/24") from error
        first, last = network.network_address.packed, network.broadcast_address.packed
        pair = int.from_bytes(first, "big"), int.from_bytes(last, "big")
        ranges[len(first)].append(pair)
    return ranges


def _contains(ranges: _Ranges, packed: bytes) -> bool:
    number = int.from_bytes(packed, "big")
    return any(low <= number <= high for low, high in ranges[len(packed)])


_LOOPBACK = _ranges(("127.0.0.0/8", "::1/128"))
_TUNNELS = _ranges(TUNNELS)
