"""What one relay process is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from relay.core.addresses import SockAddress
from relay.core.ports import ports_slice
from relay.core.settings import TurnSettings


@dataclass(frozen=True)
class ClientLimits:
    """What clients may take up, above all before they have shown that they are somebody's.

    Attributes:
        connections_max: TCP and TLS connections at once.
        strangers_max: of these, without an allocation; one more closes the oldest of them.
        strangers_per_address_max: and from one IPv4 address or IPv6 /64; one more is closed.
        dtls_sessions_max: DTLS sessions at one of our addresses.
        first_message_seconds: from the connection to the end of the first message.
        idle_seconds: without an allocation, from the last whole message to the end.
        stranger_message_bytes_max: the longest message of a client without an allocation.
        backlog_bytes_max: what waits for a client that does not read; data beyond is dropped.
    """

    connections_max: int = 16384
    strangers_max: int = 1024
    strangers_per_address_max: int = 64
    dtls_sessions_max: int = 4096
    first_message_seconds: float = 10.0
    idle_seconds: float = 30.0
    stranger_message_bytes_max: int = 4096
    backlog_bytes_max: int = 256 * 1024


@dataclass(frozen=True)
class RelayConfig:
    """The configuration of one relay process.

    Attributes:
        node: this machine's name in usage records.
        listen_addresses: host literals that clients connect to, IPv4 and IPv6.
        listen_port: 3478 unless the operator says otherwise; UDP, TCP, and what TLS needs.
        tls_port: one more port for the same; None where there is no certificate.
        certificate, certificate_key: PEM files for TLS and DTLS; both or neither.
        proxy_protocol_from: networks whose TCP connections say whose they are.
        client_limits: see `ClientLimits`.
        journal_directory: where usage records wait for the database.
        flush_interval_seconds: between two usage records of an allocation; what a crash may lose.
        turn: what the core is told.
        metrics: where metrics and health are answered; None: nowhere.
        processes: how many processes share the listening addresses and divide the relayed ports.
        process: which of them this is, from 0 on.
        cut_off_seconds: without a word of the control channel new allocations are refused after as
            long; 0: never.
        moderation_seconds: how long a rest under load is at most; datagrams gather in it. 0: none.
        compiled: whether what `make compile` has made is used, where it is there.
        io_uring: whether the kernel is asked to receive and send many datagrams with one call.
        control_sources: where the channel and its snapshot come from; they may hold passwords.
    """

    node: str
    listen_addresses: tuple[str, ...]
    listen_port: int
    journal_directory: Path
    flush_interval_seconds: int
    turn: TurnSettings
    tls_port: int | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    proxy_protocol_from: tuple[IPv4Network | IPv6Network, ...] = ()
    client_limits: ClientLimits = field(default_factory=ClientLimits)
    cut_off_seconds: int = 60
    moderation_seconds: float = 0.0
    io_uring: bool = True
    compiled: bool = True
    control_sources: tuple[str, ...] = field(default=(), repr=False)
    metrics: SockAddress | None = None
    processes: int = 1
    process: int = 0

    def for_process(self, process: int) -> RelayConfig:
        """What one of the processes is told: all of it, but its own part of the relayed ports.

        The peer rules go on to name the whole range: what the other processes relay is ours too.
        """
        if self.processes == 1:
            return self
        ports = ports_slice(self.turn.relay_ports, process, self.processes)
        return replace(self, process=process, turn=replace(self.turn, relay_ports=ports))

    @property
    def listen_endpoints(self) -> tuple[SockAddress, ...]:
        """Every address and port that clients reach this relay on."""
        ports = dict.fromkeys(port for port in (self.listen_port, self.tls_port) if port)
        usual = ((host, port) for host in self.listen_addresses for port in ports)
        discovery = self.turn.nat_discovery
        return tuple(dict.fromkeys((*usual, *(discovery.endpoints if discovery else ()))))
