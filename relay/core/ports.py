"""The relayed ports: who draws one cannot guess the next (RFC 8656 section 21.1.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from relay.core.addresses import SockAddress

_DRAWS = 32
_TAKEN = b"\1\1"  # two ports at most are taken at once


class PortPool:
    """The ports low..high of one relayed address; each is free or taken."""

    def __init__(self, low: int, high: int, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._outside: set[int] = set()  # taken when the range was another one
        self._range_set(low, high)

    def _range_set(self, low: int, high: int) -> None:
        self._low = low
        self._size = high - low + 1
        self._taken = bytearray(self._size)
        self._taken_within = 0

    def range_replace(self, low: int, high: int) -> None:
        """Give out the ports of another range from now on; what is taken stays taken."""
        taken = {self._low + index for index, byte in enumerate(bytes(self._taken)) if byte}
        taken |= self._outside
        self._range_set(low, high)
        within = {port for port in taken if low <= port <= high}
        for port in within:
            self._taken[port - low] = 1
        self._taken_within = len(within)
        self._outside = taken - within

    @property
    def taken_count(self) -> int:
        """Ports that are taken, also those that another range has left."""
        return self._taken_within + len(self._outside)

    @property
    def free_count(self) -> int:
        """Ports of the range that are free."""
        return self._size - self._taken_within

    def take(self) -> int | None:
        """Take a random free port; None where all are taken."""
        return self._take(step=1, width=1)

    def take_even_pair(self) -> int | None:
        """Take a random even port and the one above it (EVEN-PORT with R).

        Returns:
            The even port, or None where there is no such pair.
        """
        return self._take(step=2, width=2)

    def take_even(self) -> int | None:
        """Take a random free even port (EVEN-PORT without R)."""
        return self._take(step=2, width=1)

    def release(self, port: int) -> None:
        """Give a port back."""
        if port in self._outside:
            self._outside.remove(port)
            return
        index = port - self._low
        assert self._taken[index], "a port is released once"
        self._taken[index] = 0
        self._taken_within -= 1

    def _take(self, *, step: int, width: int) -> int | None:
        if self._taken_within + width > self._size:
            return None
        first = self._low % 2 if step == 2 else 0
        slots = (self._size - first - width) // step + 1
        if slots <= 0:
            return None
        slot = 0
        for _ in range(_DRAWS):
            slot = int.from_bytes(self._random_bytes(4), "big") % slots
            index = first + slot * step
            if 1 not in self._taken[index : index + width]:
                return self._mark(index, width)
        # Nearly full: the next free one after the last draw, found at the speed of memory.
        found = self._find(first, first + slot * step, step, width)
        if found < 0:
            found = self._find(first, first, step, width)
        return None if found < 0 else self._mark(found, width)

    def _find(self, first: int, start: int, step: int, width: int) -> int:
        """The first index from `start` that is free and fits the step; -1 where there is none."""
        index = self._taken.find(bytes(width), start)
        while index >= 0 and (index - first) % step:
            index = self._taken.find(bytes(width), index + 1)
        return index

    def _mark(self, index: int, width: int) -> int:
        self._taken[index : index + width] = _TAKEN[:width]
        self._taken_within += width
        return self._low + index


def ports_slice(ports: tuple[int, int], part: int, parts: int) -> tuple[int, int]:
    """One of `parts` almost equal parts of a range of ports; no even pair is cut in two.

    Args:
        ports: lowest and highest of the range; it has two ports or more for each part.
        part: which one, from 0 on.
        parts: how many there are.
    """
    low, high = ports
    pairs = (high - low % 2 - low + 1) // 2
    first = low + low % 2

    def begin(number: int) -> int:
        return first + 2 * (pairs * number // parts)

    return (
        low if part == 0 else begin(part),
        high if part == parts - 1 else begin(part + 1) - 1,
    )


class RelayedPorts:
    """A pool of ports for the relayed address of each family.

    The pool of an address that is no longer given out stays until its last port is back.
    """

    def __init__(
        self, hosts: Mapping[int, str], low: int, high: int, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._random_bytes = random_bytes
        self._hosts = dict(hosts)
        self._pools = {host: PortPool(low, high, random_bytes) for host in hosts.values()}

    def replace(self, hosts: Mapping[int, str], low: int, high: int) -> None:
        """Give out ports of other addresses, or of another range, from now on."""
        self._hosts = dict(hosts)
        for host in hosts.values():
            if host in self._pools:
                self._pools[host].range_replace(low, high)
            else:
                self._pools[host] = PortPool(low, high, self._random_bytes)
        self._forget()

    def pool(self, family: int) -> PortPool:
        """The pool of a family that is configured."""
        return self._pools[self._hosts[family]]

    def release(self, sockaddr: SockAddress) -> None:
        """Give back a port of whichever address it was taken from."""
        host, port = sockaddr
        self._pools[host].release(port)
        if len(self._pools) > len(self._hosts):
            self._forget()

    def _forget(self) -> None:
        current = self._hosts.values()
        self._pools = {
            host: pool for host, pool in self._pools.items() if host in current or pool.taken_count
        }

    def counts(self) -> dict[int, tuple[int, int]]:
        """How many ports are taken and free, by family."""
        pools = {family: self._pools[host] for family, host in self._hosts.items()}
        return {family: (pool.taken_count, pool.free_count) for family, pool in pools.items()}

    @property
    def taken_count(self) -> int:
        """Ports that are taken, of all addresses."""
        return sum(pool.taken_count for pool in self._pools.values())
