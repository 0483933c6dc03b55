"""What the core is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.core.access_tokens import ThirdParty
from relay.core.addresses import SockAddress
from relay.core.channeldata import CHANNEL_MAX_WIDE
from relay.core.limits import ProjectLimits
from relay.core.policy import PeerPolicyRules


@dataclass(frozen=True)
class NatDiscovery:
    """Two addresses of one family and two ports, for RFC 5780."""

    hosts: tuple[str, str]
    ports: tuple[int, int]

    def serves(self, server: SockAddress) -> bool:
        """Whether an address of ours is one of the four."""
        return server[0] in self.hosts and server[1] in self.ports

    def other(self, server: SockAddress) -> SockAddress:
        """The address that differs from one of the four in host and port."""
        host = self.hosts[self.hosts[0] == server[0]]
        return host, self.ports[self.ports[0] == server[1]]

    @property
    def endpoints(self) -> tuple[SockAddress, ...]:
        """All four."""
        return tuple((host, port) for host in self.hosts for port in self.ports)


@dataclass(frozen=True)
class TurnSettings:
    """The settings of one TURN server.

    Attributes:
        realm: sent in challenges, part of every key.
        secrets: what passwords derive from; any is accepted.
        nonce_keys: the first makes nonces, any is accepted.
        relay_addresses: host literals of the relayed transport addresses, at most one a family.
        relay_ports: lowest and highest relayed port.
        peer_rules: see `PeerPolicyRules`.
        credential_lifetime_seconds_max: a username that ends later than this from now is refused.
        project_limits: of every project that has none of its own.
        unauthenticated_answers_per_second: over UDP, to a /24 or /64; 0 is no limit.
        failures_per_minute: answered authentication failures of one address; 0 is no limit.
        mobility: whether allocations may move to another address of their client (RFC 8016).
        tcp_relay: whether there are TCP allocations (RFC 6062).
        third_party: whose access tokens are accepted (RFC 7635); None: there is no such thing.
        nat_discovery: the addresses that discover NATs (RFC 5780); None: there is no such thing.
        channel_number_max: 0x4FFF is RFC 8656's, 0x7FFF what clients of RFC 5766 draw from.
    """

    realm: str
    secrets: tuple[bytes, ...]
    nonce_keys: tuple[bytes, ...]
    relay_addresses: tuple[str, ...]
    relay_ports: tuple[int, int] = (49152, 65535)
    peer_rules: PeerPolicyRules = field(default_factory=PeerPolicyRules)
    credential_lifetime_seconds_max: int = 30 * 24 * 3600
    project_limits: ProjectLimits = field(default_factory=ProjectLimits)
    unauthenticated_answers_per_second: int = 10
    failures_per_minute: int = 30
    nonce_lifetime_seconds: int = 3600
    lifetime_seconds_default: int = 600  # RFC 8656 section 3.2
    lifetime_seconds_max: int = 3600
    permission_lifetime_seconds: int = 300  # RFC 8656 section 9
    channel_lifetime_seconds: int = 600  # RFC 8656 section 12
    reservation_lifetime_seconds: int = 30  # RFC 8656 section 7.2
    mobility: bool = True
    tcp_relay: bool = False
    third_party: ThirdParty | None = None
    nat_discovery: NatDiscovery | None = None
    channel_number_max: int = CHANNEL_MAX_WIDE
    permissions_max: int = 256
    channels_max: int = 256
    peers_max: int = 1024
    reservations_max: int = 16384
    answers_max: int = 4096
    connections_max: int = 16  # TCP connections of one allocation
    usernames_max: int = 100_000
    projects_max: int = 10_000
    overrides_max: int = 100_000
    refusals_per_project_max: int = 100
