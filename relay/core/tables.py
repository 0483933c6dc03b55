"""The allocations of one server, their ports and their deadlines."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf

from relay.core.addresses import FiveTuple, SockAddress, host_family
from relay.core.allocation import TCP_PROTOCOL, Allocation, RelayedAddress
from relay.core.answers import AnswerMemory
from relay.core.authentication import Accepted
from relay.core.connections import Connections
from relay.core.entitlements import AT_ONCE_MAX, Entitlements
from relay.core.holdings import Holdings
from relay.core.policy import PeerPolicy
from relay.core.ports import RelayedPorts
from relay.core.settings import TurnSettings
from relay.core.tickets import Tickets

RESERVATION_TOKEN_LENGTH = 8
NOT_RESERVED: tuple[SockAddress, float] = ("", 0), -inf
DEADLINES_SPARE = 64


class CapacityError(Exception):
    """No port is free, or no such reservation."""


class AllocationTable:
    """Every live allocation, by five-tuple and by listener.

    At most as many allocations live as the relay has ports.

    Attributes:
        adrift: those whose client's connection is gone, and that may move, by id.
        closed_because: why there is no new allocation; empty where there may be.
    """

    def __init__(
        self,
        settings: TurnSettings,
        random_bytes: Callable[[int], bytes],
        holdings: Holdings | None = None,
    ) -> None:
        self.settings = settings
        self.policy = PeerPolicy(settings.peer_rules)
        self.answers = AnswerMemory(settings.answers_max)
        self.entitlements = Entitlements(settings, holdings)
        self.relay_hosts = relay_hosts(settings.relay_addresses)
        self.ports = RelayedPorts(self.relay_hosts, *settings.relay_ports, random_bytes)
        self.closed_because: dict[str, None] = {}
        self.by_id: dict[int, Allocation] = {}
        self.by_relayed: dict[SockAddress, Allocation] = {}
        self.moving: dict[FiveTuple, Allocation] = {}
        self.adrift: dict[int, Allocation] = {}
        self.tickets = Tickets(random_bytes)
        self.connections = Connections(settings.connections_max, random_bytes)
        self._by_listener: dict[tuple[str, SockAddress], dict[SockAddress, Allocation]] = {}
        # By token: the address, and when it ends. All of them live equally long: the first one made
        # is the first one to end.
        self._reservations: dict[bytes, tuple[SockAddress, float]] = {}
        self._allocation_deadlines: list[tuple[float, int]] = []
        self._random_bytes = random_bytes
        self._holdings = holdings
        self._last_id = 0

    def settings_replace(self, settings: TurnSettings) -> None:
        """Take other settings for whatever is asked from now on.

        Raises:
            ValueError: peer rules or relay addresses that cannot be used; nothing has changed.
        """
        policy, hosts = PeerPolicy(settings.peer_rules), relay_hosts(settings.relay_addresses)
        self.settings, self.policy, self.relay_hosts = settings, policy, hosts
        self.ports.replace(hosts, *settings.relay_ports)
        self.entitlements.settings_replace(settings)

    def clients(self, transport: str, server: SockAddress) -> dict[SockAddress, Allocation]:
        """The allocations of one listener by client address: the fast lane's table."""
        return self._by_listener.setdefault((transport, server), {})

    def by_listener(self) -> dict[tuple[str, SockAddress], list[Allocation]]:
        """The allocations of every listener, by its transport and address; copies."""
        found = {key: list(clients.values()) for key, clients in self._by_listener.items()}
        for allocation in self.adrift.values():
            found[allocation.transport, allocation.five_tuple.server].append(allocation)
        return found

    def find(self, five_tuple: FiveTuple) -> Allocation | None:
        """The allocation on a five-tuple."""
        clients = self._by_listener.get((five_tuple.transport, five_tuple.server))
        return None if clients is None else clients.get(five_tuple.client)

    def is_relayed(self, five_tuple: FiveTuple) -> bool:
        """Whether its client is a relayed address of ours; a UDP and a TCP port are two."""
        allocation = self.by_relayed.get(five_tuple.client)
        if allocation is not None:
            return (allocation.protocol == TCP_PROTOCOL) == five_tuple.is_stream
        return self._holdings is not None and self._is_relayed_elsewhere(five_tuple, self._holdings)

    def _is_relayed_elsewhere(self, five_tuple: FiveTuple, holdings: Holdings) -> bool:
        host, port = five_tuple.client
        family = host_family(host)
        if self.relay_hosts.get(family) != host:
            return False
        protocol = holdings.relayed_protocol(family, port)
        return bool(protocol) and (protocol == TCP_PROTOCOL) == five_tuple.is_stream

    def create(self, *, five_tuple: FiveTuple, user: Accepted, transaction_id: bytes) -> Allocation:
        """A new allocation that has no port yet and is not entered; `enter` does that."""
        self._last_id += 1
        allocation = Allocation(
            number=self._last_id,
            five_tuple=five_tuple,
            owner=user.owner,
            username=user.username,
            keys=user.keys,
            key=user.key,
            transaction_id=transaction_id,
        )
        allocation.kid, allocation.token_ends_at = user.kid, user.token_ends_at
        return allocation

    def enter(self, allocation: Allocation) -> None:
        """Make it live."""
        self.by_id[allocation.id] = allocation
        five_tuple = allocation.five_tuple
        self.clients(five_tuple.transport, five_tuple.server)[five_tuple.client] = allocation
        for relayed in allocation.relayed.values():
            self.by_relayed[relayed.sockaddr] = allocation
            if self._holdings is not None:
                self._holdings.relayed_set(relayed.family, relayed.port, allocation.protocol)
        self._deadline_set(allocation)

    def extend(self, allocation: Allocation, relayed: RelayedAddress, expires_at: float) -> None:
        """Move an end; an earlier end needs an earlier deadline, a later one finds its own."""
        relayed.expires_at = expires_at
        if expires_at < allocation.deadline:
            self._deadline_set(allocation)

    def remove(self, allocation: Allocation) -> None:
        """Take it out, give its ports back, and what its project holds."""
        del self.by_id[allocation.id]
        self.entitlements.release(allocation)
        self.connections.end(allocation)
        self._client_remove(allocation)
        for relayed in allocation.relayed.values():
            self._relayed_release(relayed)

    def _client_remove(self, allocation: Allocation) -> None:
        if self.adrift.pop(allocation.id, None) is None:
            five_tuple = allocation.five_tuple
            del self.clients(five_tuple.transport, five_tuple.server)[five_tuple.client]
        if allocation.client_known is not None:
            known, key = allocation.client_known
            del known[key]
            allocation.client_known = None
        self.move_drop(allocation)

    def client_forget(self, allocation: Allocation) -> None:
        """Its five-tuple may be somebody else's from now on: it has none until it moves."""
        self._client_remove(allocation)
        allocation.client_send = allocation.client_route = None
        self.adrift[allocation.id] = allocation

    def move_drop(self, allocation: Allocation) -> None:
        """Let it move nowhere."""
        if allocation.moving_to is not None:
            del self.moving[allocation.moving_to]
            allocation.moving_to = None

    def move_ask(self, allocation: Allocation, five_tuple: FiveTuple) -> None:
        """Let it move to `five_tuple`, which nobody has, once something comes from there."""
        self.move_drop(allocation)
        allocation.moving_to = five_tuple
        self.moving[five_tuple] = allocation

    def move_finish(self, allocation: Allocation) -> FiveTuple:
        """Move it; the five-tuple that it had."""
        previous, five_tuple = allocation.five_tuple, allocation.moving_to
        assert five_tuple is not None, "it has been allowed to move"
        self._client_remove(allocation)
        allocation.five_tuple_set(five_tuple)
        self.clients(five_tuple.transport, five_tuple.server)[five_tuple.client] = allocation
        return previous

    def family_remove(self, allocation: Allocation, family: int) -> RelayedAddress:
        """Take one of two relayed addresses out of an allocation and give its port back."""
        relayed = allocation.family_remove(family)
        self._relayed_release(relayed)
        return relayed

    def _relayed_release(self, relayed: RelayedAddress) -> None:
        del self.by_relayed[relayed.sockaddr]
        if self._holdings is not None:
            self._holdings.relayed_set(relayed.family, relayed.port, 0)
        self.port_release(relayed.sockaddr)

    # --- ports ------------------------------------------------------------------------------------

    def port_take(self, family: int, expires_at: float) -> RelayedAddress:
        """Take any port.

        Raises:
            CapacityError: none is free (so for those below).
        """
        return self._relayed(family, self.ports.pool(family).take(), expires_at)

    def port_take_even(self, family: int, expires_at: float) -> RelayedAddress:
        """Take an even port."""
        return self._relayed(family, self.ports.pool(family).take_even(), expires_at)

    def port_take_even_pair(
        self, family: int, expires_at: float
    ) -> tuple[RelayedAddress, SockAddress]:
        """Take an even port, and the next one to be reserved."""
        if len(self._reservations) >= self.settings.reservations_max:
            raise CapacityError
        relayed = self._relayed(family, self.ports.pool(family).take_even_pair(), expires_at)
        host, port = relayed.sockaddr
        return relayed, (host, port + 1)

    def reserve(self, reserved: SockAddress, now: float) -> bytes:
        """Reserve an address that was taken; its token."""
        token = self._random_bytes(RESERVATION_TOKEN_LENGTH)
        self._reservations[token] = reserved, now + self.settings.reservation_lifetime_seconds
        return token

    def port_take_reserved(self, token: bytes, expires_at: float, now: float) -> RelayedAddress:
        """Take the port that was reserved under `token`.

        Raises:
            CapacityError: no such reservation, or it has ended.
        """
        (host, port), deadline = self._reservations.get(token, NOT_RESERVED)
        if deadline <= now:
            raise CapacityError
        del self._reservations[token]
        return RelayedAddress(host, port, expires_at)

    def port_release(self, sockaddr: SockAddress) -> None:
        """Give back a port that belongs to no live allocation and no reservation."""
        self.ports.release(sockaddr)

    def _relayed(self, family: int, port: int | None, expires_at: float) -> RelayedAddress:
        if port is None:
            raise CapacityError
        return RelayedAddress(self.relay_hosts[family], port, expires_at)

    # --- time -------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `expired` should be asked next; None where nothing waits."""
        heads = [deadline for deadline, _ in self._allocation_deadlines[:1]]
        heads += [deadline for _, deadline in islice(self._reservations.values(), 1)]
        connection = self.connections.next_deadline()
        return min(heads if connection is None else [*heads, connection], default=None)

    def expired(self, now: float) -> list[tuple[Allocation, RelayedAddress | None]]:
        """Take out what has ended.

        Returns:
            Allocations that ended (with None), and those that live on without one address. Of many
            some: the others are still due.
        """
        ended: list[tuple[Allocation, RelayedAddress | None]] = []
        for _ in range(AT_ONCE_MAX):
            if not self._allocation_deadlines or self._allocation_deadlines[0][0] > now:
                break
            deadline, number = heappop(self._allocation_deadlines)
            allocation = self.by_id.get(number)
            if allocation is None or allocation.deadline != deadline:  # it has another one
                continue
            if allocation.expires_at <= now:
                self.remove(allocation)
                ended.append((allocation, None))
                continue
            over = [found for found in allocation.relayed.values() if found.expires_at <= now]
            for relayed in over:
                ended.append((allocation, self.family_remove(allocation, relayed.family)))
            self._deadline_set(allocation)  # refreshed since, or alive by its other address
        return ended

    def _deadline_set(self, allocation: Allocation) -> None:
        """Look at it at its next end. Deadlines that nobody waits for any more are swept out."""
        if len(self._allocation_deadlines) > 2 * len(self.by_id) + DEADLINES_SPARE:
            self._allocation_deadlines = [
                (live.deadline, live.id) for live in self.by_id.values() if live is not allocation
            ]
            heapify(self._allocation_deadlines)
        allocation.deadline = min(found.expires_at for found in allocation.relayed.values())
        heappush(self._allocation_deadlines, (allocation.deadline, allocation.id))

    def reservations_end(self) -> list[SockAddress]:
        """Drop every reservation: the server stops."""
        return [self._reservation_drop(token) for token in list(self._reservations)]

    def reservations_expired(self, now: float) -> list[SockAddress]:
        """Drop reservations that have ended: of many some, the others are still due."""
        first = islice(self._reservations.items(), AT_ONCE_MAX)
        over = [token for token, (_, deadline) in first if deadline <= now]
        return [self._reservation_drop(token) for token in over]

    def _reservation_drop(self, token: bytes) -> SockAddress:
        reserved, _ = self._reservations.pop(token)
        self.port_release(reserved)
        return reserved


def relay_hosts(addresses: tuple[str, ...]) -> dict[int, str]:
    """The host of the relayed addresses of each family.

    Raises:
        ValueError: two of one family, or none at all.
    """
    hosts = {host_family(host): host for host in addresses}
    if not hosts or len(hosts) != len(addresses):
        raise ValueError("relay addresses: give one IPv4 address, one IPv6 address, or both")
    return hosts
