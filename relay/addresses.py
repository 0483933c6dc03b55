"""IP addresses as pages show them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

NETWORK_BITS = {4: 24, 6: 48}


def address_with_port(address: str, port: int) -> str:
    """ "192.0.2.1:5000", "[2001:db8::1]:5000"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def address_masked(address: str) -> str:
    """The network an address is in, which says about the same of many people: /24, IPv6 /48."""
    parsed: IPv4Address | IPv6Address = ip_address(address)
    return str(ip_network((parsed, NETWORK_BITS[parsed.version]), strict=False))
