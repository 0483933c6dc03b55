"""The sockets that clients reach a relay on: its own, or one of each for every process.

    192.0.2.1:3478 ── UDP ──┬── socket 0     one group (SO_REUSEPORT); a program of the kernel
                            └── socket 1     says which of them a packet or a connection is for
                   ── TCP ──┬── socket 0
                            └── socket 1

The program hashes the client's network, its /24 or /64. So whatever comes from one network comes
to one process: the limits on a network hold, and a reservation or a peer's connection is known
where it is asked for. The parent keeps all sockets open: a group keeps its order, and when a
process ends, what comes to its sockets waits for the next one.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from relay.core.addresses import SockAddress, host_family
from relay.host_addresses import host_addresses
from relay.log import log
from relay.transports.fragmentation import DF_CLEAR
from relay.transports.packet_filters import (
    COPY,
    INSTRUCTION,
    LOAD_WORD,
    MODULO,
    MULTIPLY,
    NETWORK_HEADER,
    RETURN_A,
    SHIFT_RIGHT,
    SO_ATTACH_REUSEPORT_CBPF,
    SOURCE_ADDRESS,
    XOR,
    XOR_COPY,
    filter_attach,
    filter_detach,
    nothing_passes,
)

RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
LISTEN_BACKLOG = 1024

# The UDP socket and the TCP socket of one process, at one address.
Pair = tuple[socket.socket, socket.socket]
Endpoints = dict[SockAddress, Pair]


class ListenError(Exception):
    """An address cannot be bound; the message says which, and why."""

    def __init__(self, address: SockAddress, error: OSError) -> None:
        super().__init__(f"{address[0]} port {address[1]} ({error.strerror})")


def addresses_named(addresses: Sequence[SockAddress]) -> list[SockAddress]:
    """The same with every address that this host has now in the place of 0.0.0.0 and ::.

    An answer has to come from where the request was sent to (RFC 8489 section 6.3.1.2). From a
    socket that is bound to no address it comes from whichever the route to the client has. What the
    system does not tell stays as it is; addresses of a link have no meaning beyond it.
    """
    own = [host for host in sorted(host_addresses()) if not ip_address(host).is_link_local]
    named: dict[SockAddress, None] = {}
    for host, port in addresses:
        wanted = ip_address(host)
        found = [each for each in own if host_family(each) == host_family(host)]
        named |= {(each, port): None for each in (found if wanted.is_unspecified else ()) or [host]}
    return list(named)


def udp_bind(address: SockAddress, *, shared: bool = False) -> socket.socket:
    """A UDP socket at an address; where that is shared, nothing reaches it yet.

    Raises:
        OSError: the address cannot be bound.
    """
    with _made(address, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, RECEIVE_BUFFER_BYTES)
        if ":" not in address[0]:
            made.setsockopt(*DF_CLEAR)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            filter_attach(made, nothing_passes())
        made.bind(address)
        return made


def tcp_bind(address: SockAddress, *, shared: bool = False) -> socket.socket:
    """A TCP socket that listens at an address.

    Raises:
        OSError: the address cannot be bound.
    """
    with _made(address, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
        made.listen(LISTEN_BACKLOG)
        return made


def endpoint_bind(address: SockAddress, *, shared: bool = False) -> Pair:
    """The UDP socket and the TCP socket at an address; as `udp_bind` where that is shared.

    Raises:
        OSError: the address cannot be bound, for one of them.
    """
    datagrams = udp_bind(address, shared=shared)
    try:
        return datagrams, tcp_bind(address, shared=shared)
    except OSError:
        datagrams.close()
        raise


@contextlib.contextmanager
def _made(address: SockAddress, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """A socket that does not block; closed again where it cannot be bound."""
    ipv6 = ":" in address[0]
    made = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if ipv6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        yield made
    except OSError:
        made.close()
        raise


def endpoints_bind(addresses: Sequence[SockAddress], processes: int) -> list[Endpoints]:
    """Bind every address once for each process, and steer the clients' networks.

    Raises:
        ListenError: as `endpoints_bind_alone`.
    """
    seed = secrets.randbits(32)
    # Without sharing first: another relay of this account would share with us, too.
    alone = endpoints_bind_alone(addresses)
    endpoints_close([alone])
    bound: list[Endpoints] = [{} for _ in range(processes)]
    for address in alone:
        try:
            for endpoints in bound:
                endpoints[address] = endpoint_bind(address, shared=True)
        except OSError as error:
            endpoints_close(bound)
            raise ListenError(address, error) from error
        steering = steering_program(16 if ":" in address[0] else 4, processes, seed)
        for first in bound[0][address]:
            filter_attach(first, steering, SO_ATTACH_REUSEPORT_CBPF)
        for endpoints in bound:
            filter_detach(endpoints[address][0])
    return bound


def endpoints_bind_alone(addresses: Sequence[SockAddress]) -> Endpoints:
    """Bind every address for a relay that is alone.

    What a wildcard stands for and is not ready is left out: an IPv6 address that an interface has
    just been given cannot be bound until the host knows that nobody else has it.

    Raises:
        ListenError: one of the addresses cannot be bound, or none is ready; none is bound.
    """
    bound: Endpoints = {}
    left_out: list[ListenError] = []
    for address in addresses_named(addresses):
        try:
            bound[address] = endpoint_bind(address)
        except OSError as error:
            failed = ListenError(address, error)
            if error.errno != errno.EADDRNOTAVAIL or address in addresses:
                endpoints_close([bound])
                raise failed from error
            left_out.append(failed)
            log("address_left_out", level="warning", family=6 if ":" in address[0] else 4)
    if left_out and not bound:
        raise left_out[0]
    return bound


def endpoints_close(bound: Sequence[Endpoints]) -> None:
    """Close this process's hold on sockets."""
    for endpoints in bound:
        for pair in endpoints.values():
            for each in pair:
                each.close()


def steering_program(address_length: int, processes: int, seed: int) -> bytes:
    """The program that says which socket of a group a client's network belongs to.

    Args:
        address_length: 4 or 16 bytes.
        processes: how many there are.
        seed: 32 bits that nobody knows, so that nobody can choose whose process to share.
    """
    source = NETWORK_HEADER + SOURCE_ADDRESS[address_length]
    network = [(LOAD_WORD, source), (SHIFT_RIGHT, 8)]
    if address_length == 16:
        network = [(LOAD_WORD, source), (MULTIPLY, 0x9E3779B1), (COPY, 0)]
        network += [(LOAD_WORD, source + 4), (XOR_COPY, 0)]
    mixed = [(XOR, seed)]
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed += [(COPY, 0), (SHIFT_RIGHT, shift), (XOR_COPY, 0), (MULTIPLY, factor)]
    mixed += [(COPY, 0), (SHIFT_RIGHT, 16), (XOR_COPY, 0)]
    chosen = [(MODULO, processes), (RETURN_A, 0)]
    return b"".join(
        INSTRUCTION.pack(code, 0, 0, operand) for code, operand in (*network, *mixed, *chosen)
    )
