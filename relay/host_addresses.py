"""The addresses of this host's interfaces, as Linux lists them.

/proc/net/fib_trie   IPv4: "|-- 192.0.2.1", and on the line below it "/32 host LOCAL"
/proc/net/if_inet6   IPv6: 32 hexadecimal digits at the start of each line
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv6Address
from pathlib import Path

from relay.core.addresses import FAMILY_IPV6, host_family

_IPV4 = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


def host_addresses(proc: Path = Path("/proc/net")) -> set[str]:
    """Every address of every interface; empty where the system does not say.

    Args:
        proc: where the two files are.
    """
    addresses = set(_IPV4.findall(_read(proc / "fib_trie")))
    for line in _read(proc / "if_inet6").splitlines():
        addresses.add(str(IPv6Address(bytes.fromhex(line.split()[0]))))
    return addresses


def relayed_address_fault(host: str) -> str:
    """Why relayed sockets cannot be opened at an address, and what to do; empty where they can."""
    family = socket.AF_INET6 if host_family(host) == FAMILY_IPV6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return (
            f"cannot open ports at the relayed address {host} ({error.strerror}): set"
            " MINDMORE_TURN_RELAY_ADDRESS to an address of this host"
        )
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
