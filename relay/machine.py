"""What a relay takes of its machine at the start: addresses, descriptors, journal, certificate."""

from __future__ import annotations

import resource
import secrets
from collections.abc import Callable

from relay.config import RelayConfig
from relay.host_addresses import relayed_address_fault
from relay.log import log
from relay.metering.journal import Journal
from relay.transports.certificates import Certificate, CertificateError
from relay.transports.listening import ListenError
from relay.transports.rings import Ring, RingUnavailableError

DESCRIPTORS_SPARE = 256
DESCRIPTORS_MIN = 64


class RelayStartError(Exception):
    """The relay cannot start; the message says why and what to do."""


class RelayFailedError(Exception):
    """The relay had to stop; the message says why."""


def listen_failed(error: ListenError) -> RelayStartError:
    """What to say where an address cannot be bound."""
    return RelayStartError(
        f"cannot listen on {error}: stop what uses it, or set MINDMORE_TURN_LISTEN_ADDRESS,"
        " MINDMORE_TURN_PORT and MINDMORE_TURN_TLS_PORT"
    )


def addresses_try(config: RelayConfig) -> None:
    """See that relayed sockets can be opened; else every call would fail, one by one.

    Raises:
        RelayStartError: they cannot, or the second address for discovery is not this host's.
    """
    discovery = config.turn.nat_discovery
    if discovery is not None and relayed_address_fault(discovery.hosts[1]):
        raise RelayStartError(
            f"MINDMORE_TURN_OTHER_ADDRESS is {discovery.hosts[1]}, which is no address of this"
            " host: set it to one, or leave it out"
        )
    for host in config.turn.relay_addresses:
        fault = relayed_address_fault(host)
        if fault:
            raise RelayStartError(fault)


def random_bytes_pool(size: int = 8192) -> Callable[[int], bytes]:
    """A source like `secrets.token_bytes` that asks the kernel once for many small pieces.

    A Data indication needs 12 random bytes: a system call for each would cost a tenth of it.
    """
    pool, position = b"", size

    def take(count: int) -> bytes:
        nonlocal pool, position
        if position + count > len(pool):
            pool, position = secrets.token_bytes(size), 0
        position += count
        return pool[position - count : position]

    return take


def ring_open(config: RelayConfig) -> Ring | None:
    """The io_uring of this thread; None where there is none: sockets do it too, for more CPU."""
    if not config.io_uring:
        return None
    try:
        return Ring()
    except RingUnavailableError as error:
        log("io_uring_unavailable", reason=str(error))
        return None


def journal_open(config: RelayConfig, boot: str) -> Journal:
    """The journal of this start.

    Raises:
        RelayStartError: it cannot be written.
    """
    try:
        return Journal(directory=config.journal_directory, node=config.node, boot=boot)
    except (OSError, ValueError) as error:
        raise RelayStartError(
            f"cannot write the usage journal in {config.journal_directory} ({error}): make it"
            " writable for this user, or set MINDMORE_HOME"
        ) from error


def certificate_load(config: RelayConfig) -> Certificate | None:
    """The certificate for TLS and DTLS; None where none is configured.

    Raises:
        RelayStartError: it cannot be used.
    """
    if config.certificate is None or config.certificate_key is None:
        return None
    try:
        return Certificate(config.certificate, config.certificate_key)
    except CertificateError as error:
        raise RelayStartError(
            f"{error}: set MINDMORE_TURN_CERTIFICATE and MINDMORE_TURN_CERTIFICATE_KEY to a PEM"
            " chain and its key without a password, or unset both"
        ) from error


def descriptors_raise(config: RelayConfig) -> None:
    """Raise the soft limit of open files to what ports and connections need, as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    relay_port_min, relay_port_max = config.turn.relay_ports
    relayed = (relay_port_max - relay_port_min + 1) * len(config.turn.relay_addresses)
    wanted = relayed + config.client_limits.connections_max + DESCRIPTORS_SPARE
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
        if limit < wanted:
            log("few_descriptors", open_files_max=limit, wanted=wanted, relayed_ports=relayed)


def descriptors_check() -> None:
    """See that there are enough open files to serve anybody.

    Raises:
        RelayStartError: there are not.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < DESCRIPTORS_MIN:
        raise RelayStartError(
            f"this process may have {limit} open files: allow at least {DESCRIPTORS_MIN}, and one"
            " for each call (ulimit -n, LimitNOFILE=)"
        )
