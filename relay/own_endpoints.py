"""Where this service itself listens: never a peer, not even on an opened network.

Settings may name a host instead of its address. What the name stands for is asked at the start and
at every reload; where nobody answers, what it stood for last still holds.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from relay.core.addresses import SockAddress
from relay.log import log

LOOPBACK: Final = ("127.0.0.1", "::1")


class HostNames:
    """The addresses of hosts, as far as this process has been told them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...]] = {}

    def endpoints(self, named: Iterable[tuple[str, str, int]]) -> tuple[SockAddress, ...]:
        """The transport addresses of services, in both families; blocks while names are asked for.

        Args:
            named: what each is called in the log; its host: an address, a name, or the path of a
                socket, which nobody reaches by an address; its port.
        """
        return tuple(
            (address, port)
            for service, host, port in named
            for address in self._addresses(service, host)
        )

    def _addresses(self, service: str, host: str) -> tuple[str, ...]:
        if not host or host.startswith(("/", "@")):
            return ()
        try:
            return (str(ip_address(host)),)
        except ValueError:
            pass
        if host.rstrip(".").lower() == "localhost":
            return LOOPBACK
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            log("own_name_unknown", level="warning", service=service, error=type(error).__name__)
        else:
            # Sorted: servers of names change the order with every answer.
            hosts = sorted({str(address[0]).partition("%")[0] for *_, address in found})
            self._known[host] = tuple(hosts)
        return self._known.get(host, ())
