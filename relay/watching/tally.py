"""What the runner counts beside the core: events that leave nothing behind in any table.

Bytes and packets are counted in the allocations. What has ended, or has moved to another transport
or family, is kept here by transport and family, so that past and present make one counter:

    total of a way = past of the way + what its live allocations have counted
    a move from A to B: what the allocation has counted is added to A's past, taken off B's
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from relay.core.addresses import FiveTuple, SockAddress, host_family
from relay.core.allocation import Allocation
from relay.core.effects import AuthenticationOutcome
from relay.watching.metrics import FAMILIES

Way = tuple[str, str]  # transport and family between client and relay
Sums = list[int]

COUNTERS: Final = (
    "client_received_bytes",
    "client_sent_bytes",
    "peer_received_bytes",
    "peer_sent_bytes",
    "client_received_packets",
    "peer_received_packets",
)
_counters = attrgetter(*COUNTERS)
_METHOD_BITS: Final = 0x3EEF
_CLASS_BIT: Final = 0x10  # of the second byte: error, where the message is a response
_ERROR_CODE_AT: Final = 26  # an error response begins with its ERROR-CODE


def way_of(transport: str, server: SockAddress) -> Way:
    """The way that the clients of one listener come."""
    return transport, FAMILIES[host_family(server[0])]


def counters_sum(allocations: Iterable[Allocation]) -> Sums:
    """What some allocations have counted, in the order of COUNTERS."""
    columns = zip(*map(_counters, allocations), strict=True)
    return [sum(column) for column in columns] or [0] * len(COUNTERS)


class Tally:
    """The counts of one relay.

    Attributes:
        started: allocations, by way.
        authentications: by outcome.
        successes, errors: responses by method, and by method and code.
    """

    def __init__(self) -> None:
        self.started: Counter[Way] = Counter()
        self.authentications: Counter[str] = Counter()
        self.successes: Counter[int] = Counter()
        self.errors: Counter[tuple[int, int]] = Counter()
        self._past: dict[Way, Sums] = {}

    @property
    def past(self) -> dict[Way, Sums]:
        """What ended allocations have counted, by way; a copy."""
        return {way: list(sums) for way, sums in self._past.items()}

    def allocation_started(self, allocation: Allocation) -> None:
        """One more."""
        self.started[_way(allocation.five_tuple)] += 1

    def allocation_moved(self, allocation: Allocation, previous: FiveTuple) -> None:
        """What it has counted was counted on the way that it came before."""
        self._add(_way(previous), allocation, 1)
        self._add(_way(allocation.five_tuple), allocation, -1)

    def allocation_ended(self, allocation: Allocation) -> None:
        """It counts no more."""
        self._add(_way(allocation.five_tuple), allocation, 1)

    def authenticated(self, outcome: AuthenticationOutcome) -> None:
        """A request was judged by who it comes from."""
        self.authentications[outcome.value] += 1

    def responded(self, datagram: bytes) -> None:
        """Count a message to a client where it is a response; what is not goes by."""
        first, second = datagram[0], datagram[1]
        if not first & 1:  # an indication
            return
        method = (first << 8 | second) & _METHOD_BITS
        if second & _CLASS_BIT:
            code = datagram[_ERROR_CODE_AT] * 100 + datagram[_ERROR_CODE_AT + 1]
            self.errors[method, code] += 1
        else:
            self.successes[method] += 1

    def _add(self, way: Way, allocation: Allocation, sign: int) -> None:
        sums = self._past.setdefault(way, [0] * len(COUNTERS))
        for index, count in enumerate(_counters(allocation)):
            sums[index] += sign * count


def _way(five_tuple: FiveTuple) -> Way:
    return way_of(five_tuple.transport, five_tuple.server)
