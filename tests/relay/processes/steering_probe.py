"""Which process the kernel chooses for each network: run in a network namespace of its own.

    unshare --net python -m tests.relay.processes.steering_probe

Binds the sockets of three processes at two addresses of each family, then sends and connects from
several addresses and ports of each of many networks; prints what came where, as JSON.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from ipaddress import ip_address

from relay.core.addresses import SockAddress
from relay.transports.listening import Endpoints, endpoints_bind

PROCESSES = 3
NETWORKS = 600
IPV6_FREEBIND = 78
SERVERS: dict[int, list[SockAddress]] = {
    4: [("127.0.0.1", 3478), ("127.0.0.2", 5349)],
    6: [("::1", 3478), ("::1", 5349)],
}


def hosts(family: int, index: int) -> tuple[str, str]:
    """Two addresses of one network: /24s in a row, /64s that differ in either half."""
    if family == 4:
        prefix = f"127.{1 + index // 256}.{index % 256}"
        return f"{prefix}.1", f"{prefix}.254"
    prefix = f"2001:db8:{index:x}:0" if index % 2 else f"2001:db8:0:{index:x}"
    first, second = (ip_address(f"{prefix}:{rest}") for rest in ("0:0:0:1", "abcd:ef01:2345:6789"))
    return str(first), str(second)


def opened(family: int, kind: socket.SocketKind, host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)
    if family == 6:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    made.bind((host, 0))
    return made


def received(endpoint: socket.socket) -> Iterator[str]:
    """The hosts of all whose datagrams wait."""
    while True:
        try:
            yield endpoint.recvfrom(100)[1][0]
        except BlockingIOError:
            return


def accepted(endpoint: socket.socket) -> Iterator[str]:
    """The hosts of all whose connections wait."""
    while True:
        try:
            connection, address = endpoint.accept()
        except BlockingIOError:
            return
        connection.close()
        yield address[0]


def probe(bound: list[Endpoints], family: int) -> dict[int, list[tuple[str, int]]]:
    """By network, what came to which process: (transport, process)."""
    networks = {host: index for index in range(NETWORKS) for host in hosts(family, index)}
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for host in networks:
        for server in SERVERS[family]:
            with opened(family, socket.SOCK_DGRAM, host) as client:
                client.sendto(b"x", server)
            with opened(family, socket.SOCK_STREAM, host) as client:
                client.connect(server)
                collect(bound, server, networks, found)
    time.sleep(0.2)  # on loopback everything has come by now; what comes late is missed and fails
    for server in SERVERS[family]:
        collect(bound, server, networks, found)
    return found


def collect(
    bound: list[Endpoints],
    server: SockAddress,
    networks: dict[str, int],
    found: dict[int, list[tuple[str, int]]],
) -> None:
    for process, endpoints in enumerate(bound):
        datagrams, streams = endpoints[server]
        for host in received(datagrams):
            found[networks[host]].append(("udp", process))
        for host in accepted(streams):
            found[networks[host]].append(("tcp", process))


def main() -> None:
    """Make the namespace usable, then probe both families."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "route", "add", "local", "2001:db8::/32", "dev", "lo"], check=True)
    bound = endpoints_bind([*SERVERS[4], *SERVERS[6]], PROCESSES)
    json.dump({family: probe(bound, family) for family in SERVERS}, sys.stdout)


if __name__ == "__main__":
    main()
