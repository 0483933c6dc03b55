"""Limits on answers to those who have proved nothing: constant memory, whoever sends.

    slot = hash(network)      times: | n times | n times | n times | ...   the last n answers
                                          ^ oldest of a slot: answer only if it is long enough ago

Sources share slots once there are more of them than slots. The hash is keyed anew in every
process, so nobody can choose whose slot to share.
"""

from __future__ import annotations

from array import array
from math import inf

from relay.core.addresses import host_pack

# Of 8 bytes each: 1.3 MB, which is what a million spoofed sources can make of it.
TIMES = 163_840
COUNT_MAX = 1000
SILENCE_LOGGED_SECONDS = 60
_IPV4_MAPPED = bytes(10) + b"\xff\xff"


class SlidingLimit:
    """At most `count` events of one source in any `seconds`; 0 is no limit.

    Raises:
        ValueError: a count outside 0..1000.
    """

    def __init__(self, count: int, seconds: float) -> None:
        if not 0 <= count <= COUNT_MAX:
            raise ValueError(f"a limit of {count}: write 1 to {COUNT_MAX}, or 0 for none")
        self._count = count
        self._seconds = seconds
        self._slots = TIMES // count if count else 0
        self._times = array("d", [-inf]) * (self._slots * count)
        self._oldest = array("H", bytes(2 * self._slots))

    def allows(self, source: str | bytes, now: float) -> bool:
        """Count one more event of `source` at `now`; False where that is one too many."""
        if not self._count:
            return True
        slot = hash(source) % self._slots
        oldest = self._oldest[slot]
        index = slot * self._count + oldest
        if now - self._times[index] < self._seconds:
            return False
        self._times[index] = now
        self._oldest[slot] = (oldest + 1) % self._count
        return True


class SilenceLog:
    """Says when the log gets a line about a limit: at once, then once a minute at most."""

    def __init__(self) -> None:
        self._next_at: dict[str, float] = {}

    def is_due(self, limit: str, now: float) -> bool:
        """Whether this time a line is written; `limit` is one of a fixed few."""
        if now < self._next_at.get(limit, 0.0):
            return False
        self._next_at[limit] = now + SILENCE_LOGGED_SECONDS
        return True


def network_of(host: str) -> str | bytes:
    """The /24 of an IPv4 address or the /64 of an IPv6 one: who may be taken for one source."""
    if ":" not in host:
        return host.rpartition(".")[0]
    packed = host_pack(host.partition("%")[0])
    if packed.startswith(_IPV4_MAPPED):
        return f"{packed[12]}.{packed[13]}.{packed[14]}"
    return packed[:8]


def address_of(host: str) -> str | bytes:
    """An IPv4 address, or the /64 of an IPv6 one: what one subscriber has."""
    return host if "." in host else network_of(host)
