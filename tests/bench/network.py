"""Where the bench runs: two network namespaces joined by a veth pair, or loopback.

Between the namespaces a packet takes the whole way through the kernel's IP stack on both sides;
the namespaces live as long as the bench and touch nothing of the host's network. Each client
has an address in a /24 of its own, so that limits per source network do not come between.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """Addresses of the two servers and of what talks to them, and how to enter their places."""

    kind: str
    servers: tuple[str, str]
    peer: str
    client_prefix: str  # the first octet and a second one to add to
    client_second_octet: int
    server_command: tuple[str, ...] = ()
    client_command: tuple[str, ...] = ()

    def client_address(self, index: int) -> str:
        """The address of client `index`, in a /24 that no other client has."""
        second = self.client_second_octet + index // 256
        return f"{self.client_prefix}.{second}.{index % 256}.1"

    @property
    def allowed_peers(self) -> str:
        """The range that the relay's peer policy must open for this run."""
        return f"{self.client_prefix}.0.0.0/8"


LOOPBACK = Network(
    kind="loopback",
    servers=("127.1.0.1", "127.1.0.2"),
    peer="127.2.0.1",
    client_prefix="127",
    client_second_octet=64,
)


def ip(*words: str) -> None:
    """Run one iproute2 command."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def network_open(*, loopback: bool = False) -> Iterator[Network]:
    """The best place that this machine allows, taken down at the end."""
    server, client = f"mmbench-{os.getpid()}-s", f"mmbench-{os.getpid()}-c"
    if loopback or os.geteuid() != 0 or shutil.which("ip") is None:
        yield LOOPBACK
        return
    try:
        try:
            namespaces_make(server, client)
        except (subprocess.CalledProcessError, OSError):
            yield LOOPBACK
            return
        yield Network(
            kind="network namespaces over veth",
            servers=("10.1.0.1", "10.1.0.2"),
            peer="10.1.0.3",
            client_prefix="10",
            client_second_octet=64,
            server_command=("ip", "netns", "exec", server),
            client_command=("ip", "netns", "exec", client),
        )
    finally:
        for namespace in (server, client):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)


def namespaces_make(server: str, client: str) -> None:
    """Make both namespaces, the pair between them, addresses and routes."""
    ip("netns", "add", server)
    ip("netns", "add", client)
    ip("link", "add", "mmb0", "netns", server, "type", "veth", "peer", "mmb0", "netns", client)
    for namespace, addresses in ((server, ("10.1.0.1", "10.1.0.2")), (client, ("10.1.0.3",))):
        for address in addresses:
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", "mmb0")
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "link", "set", "mmb0", "up")
    # All of 10.64.0.0/10 is local to the clients' side: any of it can be bound to.
    ip("-n", client, "route", "add", "local", "10.64.0.0/10", "dev", "lo")
    ip("-n", server, "route", "add", "10.64.0.0/10", "via", "10.1.0.3")
