"""TCP connections between a relayed address and its peers (RFC 6062 section 3).

    Connect ──▶ connecting ──▶ waiting for the client ──ConnectionBind──▶ bound
    a peer connects ─────────▶ waiting for the client

Each of the two waits ends after 30 seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from relay.core.addresses import FiveTuple, SockAddress
from relay.core.allocation import Allocation
from relay.core.integrity import IntegrityKey
from relay.core.stun import StunMessage

WAIT_SECONDS = 30.0  # RFC 6062 sections 5.2 and 5.3
CONNECTION_ID_LENGTH = 4
DEADLINES_SPARE = 64


class PeerConnection:
    """One connection with a peer.

    Attributes:
        id: unique in this relay, and not to be guessed.
        request: the Connect request and the key of its answer, until that is given.
        client: the five-tuple of the client's data connection, once there is one.
        deadline: when the wait for peer or client ends; not looked at once bound.
    """

    __slots__ = ("allocation", "client", "deadline", "id", "peer", "request")

    def __init__(
        self,
        number: int,
        allocation: Allocation,
        peer: SockAddress,
        request: tuple[StunMessage, IntegrityKey] | None,
        deadline: float,
    ) -> None:
        self.id = number
        self.allocation = allocation
        self.peer = peer
        self.request = request
        self.deadline = deadline
        self.client: FiveTuple | None = None

    @property
    def value(self) -> bytes:
        """The value of a CONNECTION-ID attribute."""
        return self.id.to_bytes(CONNECTION_ID_LENGTH, "big")


class Connections:
    """All of them; so many for each allocation."""

    def __init__(self, per_allocation_max: int, random_bytes: Callable[[int], bytes]) -> None:
        self.by_id: dict[int, PeerConnection] = {}
        self.by_client: dict[FiveTuple, PeerConnection] = {}
        self._by_allocation: dict[int, dict[SockAddress, PeerConnection]] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._per_allocation_max = per_allocation_max
        self._random_bytes = random_bytes

    def find(self, value: bytes) -> PeerConnection | None:
        """The connection that a CONNECTION-ID names."""
        return self.by_id.get(int.from_bytes(value, "big")) if value else None

    def exists(self, allocation: Allocation, peer: SockAddress) -> bool:
        """Whether there is one with this peer, in whatever state."""
        return peer in self._by_allocation.get(allocation.id, {})

    def have_room(self, allocation: Allocation) -> bool:
        """Whether one more fits."""
        return len(self._by_allocation.get(allocation.id, {})) < self._per_allocation_max

    def of_allocation(self, allocation: Allocation) -> list[PeerConnection]:
        """All of an allocation."""
        return list(self._by_allocation.get(allocation.id, {}).values())

    def begin(
        self,
        allocation: Allocation,
        peer: SockAddress,
        request: tuple[StunMessage, IntegrityKey] | None,
        now: float,
    ) -> PeerConnection:
        """A new one, which waits for its peer (with a request) or for the client (without)."""
        number = 0
        while not number or number in self.by_id:
            number = int.from_bytes(self._random_bytes(CONNECTION_ID_LENGTH), "big")
        connection = PeerConnection(number, allocation, peer, request, 0.0)
        self.by_id[number] = connection
        self._by_allocation.setdefault(allocation.id, {})[peer] = connection
        self.wait(connection, now)
        return connection

    def wait(self, connection: PeerConnection, now: float) -> None:
        """Let it wait for 30 seconds from now. What waits no more is swept out."""
        if len(self._deadlines) > 2 * len(self.by_id) + DEADLINES_SPARE:
            self._deadlines = [
                (other.deadline, other.id)
                for other in self.by_id.values()
                if other.client is None and other is not connection
            ]
            heapify(self._deadlines)
        connection.deadline = now + WAIT_SECONDS
        heappush(self._deadlines, (connection.deadline, connection.id))

    def bind(self, connection: PeerConnection, client: FiveTuple) -> None:
        """Join it with the client's data connection; it waits for nothing any more."""
        connection.client = client
        self.by_client[client] = connection

    def remove(self, connection: PeerConnection) -> None:
        """Take it out."""
        del self.by_id[connection.id]
        of_allocation = self._by_allocation[connection.allocation.id]
        del of_allocation[connection.peer]
        if not of_allocation:
            del self._by_allocation[connection.allocation.id]
        if connection.client is not None:
            del self.by_client[connection.client]

    def end(self, allocation: Allocation) -> None:
        """Take out all of an allocation."""
        for connection in self.of_allocation(allocation):
            self.remove(connection)

    def next_deadline(self) -> float | None:
        """When `expired` should be asked next; None where nothing waits."""
        return self._deadlines[0][0] if self._deadlines else None

    def expired(self, now: float) -> list[PeerConnection]:
        """Those that have waited too long; they are not taken out."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, number = heappop(self._deadlines)
            connection = self.by_id.get(number)
            waits = connection is not None and connection.client is None
            if connection is not None and waits and connection.deadline == deadline:
                expired.append(connection)
        return expired
