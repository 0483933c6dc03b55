"""What the processes of one relay hold together, in memory that they share.

    names    | 16 bytes | 16 bytes | ...       hash of a project, or of a project and a credential
    process 0| count    | count    | ...       how many allocations it holds under that name
    process 1| count    | count    | ...
    relayed  | IPv4: a byte for each port | IPv6: likewise     the protocol of what is open there
    drain    | whether | until when

A name has its place among the 64 of one bucket. A place is free once all its counts are zero,
whatever name still stands there; while this process counts something in it nobody else takes it.
Each process writes its own counts only, so those of one that was killed can be set to zero by its
parent. Whoever counts up holds a lock that the kernel takes from a process that dies; counting down
needs none.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from math import isnan, nan
from struct import Struct

from relay.core.addresses import FAMILY_IPV4
from relay.core.holdings import DrainHeld, QuotaExceeded

NAME_BYTES = 16
PLACES = 64  # of a bucket
PLACES_WANTED = 16  # of them in use when everything is: hashed names never overflow one then
COUNT = Struct("=I")
DRAIN = Struct("=?d")  # whether there is one; when it ends what is left, or no number
PORTS = 1 << 16
FAMILIES = 2


class SharedHoldings:
    """The memory, as one process sees it; made once, before the others are forked.

    Args:
        processes: how many there are.
        allocations_max: how many they can hold, all together.
    """

    def __init__(self, *, processes: int, allocations_max: int) -> None:
        names = 2 * allocations_max  # each counts for its project and for its credential
        self._buckets = names // PLACES_WANTED + 1
        self._places = self._buckets * PLACES
        self._processes = processes
        self._process = 0
        self._relayed = self._places * (NAME_BYTES + COUNT.size * processes)
        self._drain = self._relayed + FAMILIES * PORTS
        self._memory = mmap.mmap(-1, self._drain + DRAIN.size)
        self._lock_file = os.memfd_create("mindmore-relay-holdings")
        self._own: dict[bytes, int] = {}  # where this process counts something

    def enter(self, process: int) -> None:
        """Become the view of one process: to be called once, after it was forked."""
        self._process = process
        self._own = {}

    def forget(self, process: int, relayed_ports: tuple[int, int]) -> None:
        """Give back what a process held that is gone."""
        low, high = relayed_ports
        with self._lock():
            begin = self._column(process)
            self._memory[begin : begin + self._places * COUNT.size] = bytes(
                self._places * COUNT.size
            )
            for family in range(FAMILIES):
                begin = self._relayed + family * PORTS + low
                self._memory[begin : begin + high + 1 - low] = bytes(high + 1 - low)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self._lock_file)

    # --- relay.core.holdings.Holdings -------------------------------------------------------------

    def take(
        self,
        project: str,
        credential: str,
        project_max: int | None,
        credential_max: int | None,
    ) -> QuotaExceeded | None:
        """See `Holdings`."""
        names = _names(project, credential)
        with self._lock():
            for name, allowed in zip(names, (project_max, credential_max), strict=False):
                held = 0 if allowed is None else self._held(name)
                if allowed is not None and held >= allowed:
                    return QuotaExceeded(name is not names[0], held, allowed)
            for name in names:
                if not self._count(name):
                    if name is not names[0]:
                        self._uncount(names[0])
                    return QuotaExceeded(name is not names[0], 0, 0)
        return None

    def give_back(self, project: str, credential: str) -> None:
        """See `Holdings`."""
        for name in _names(project, credential):
            self._uncount(name)

    def relayed_set(self, family: int, port: int, protocol: int) -> None:
        """See `Holdings`."""
        self._memory[self._port(family, port)] = protocol

    def relayed_protocol(self, family: int, port: int) -> int:
        """See `Holdings`."""
        return self._memory[self._port(family, port)]

    def drain_set(self, drain: DrainHeld | None) -> None:
        """See `Holdings`."""
        ends_at = drain.ends_at if drain is not None else None
        with self._lock():
            DRAIN.pack_into(
                self._memory, self._drain, drain is not None, nan if ends_at is None else ends_at
            )

    def drain(self) -> DrainHeld | None:
        """See `Holdings`."""
        with self._lock():
            is_draining, ends_at = DRAIN.unpack_from(self._memory, self._drain)
        if not is_draining:
            return None
        return DrainHeld(None if isnan(ends_at) else ends_at)

    def held(self, project: str, credential: str = "") -> int:
        """How many allocations a project, or one of its credentials, holds in all processes."""
        name = _names(project, credential)[-1]
        with self._lock():
            return self._held(name)

    # --- counts -----------------------------------------------------------------------------------

    def _held(self, name: bytes) -> int:
        place = self._find(name)
        if place is None:
            return 0
        at = place * COUNT.size
        columns = (self._column(process) for process in range(self._processes))
        return sum(COUNT.unpack_from(self._memory, column + at)[0] for column in columns)

    def _count(self, name: bytes) -> bool:
        """Count one more under a name; False where its bucket has no place for it."""
        place = self._find(name)
        if place is None:
            place = self._free(self._bucket(name))
            if place is None:
                return False
            self._memory[place * NAME_BYTES : (place + 1) * NAME_BYTES] = name
        self._add(place, 1)
        self._own[name] = place
        return True

    def _uncount(self, name: bytes) -> None:
        if not self._add(self._own[name], -1):
            del self._own[name]

    def _add(self, place: int, change: int) -> int:
        at = self._column(self._process) + place * COUNT.size
        count: int = COUNT.unpack_from(self._memory, at)[0] + change
        COUNT.pack_into(self._memory, at, count)
        return count

    # --- places -----------------------------------------------------------------------------------

    @contextmanager
    def _lock(self) -> Iterator[None]:
        # Not flock: that belongs to the open file, which forked processes have in common.
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)

    def _find(self, name: bytes) -> int | None:
        begin = self._bucket(name) * NAME_BYTES
        end = begin + PLACES * NAME_BYTES
        at = self._memory.find(name, begin, end)
        while at >= 0 and at % NAME_BYTES:
            at = self._memory.find(name, at + 1, end)
        return None if at < 0 else at // NAME_BYTES

    def _free(self, bucket: int) -> int | None:
        """The first place of a bucket where nobody counts anything."""
        counted = 0
        for process in range(self._processes):
            begin = self._column(process) + bucket * COUNT.size
            counted |= int.from_bytes(self._memory[begin : begin + PLACES * COUNT.size], "little")
        for offset in range(PLACES):
            if not counted & 0xFFFFFFFF:
                return bucket + offset
            counted >>= 8 * COUNT.size
        return None

    def _bucket(self, name: bytes) -> int:
        """The first place of a name's bucket."""
        return int.from_bytes(name[:8], "little") % self._buckets * PLACES

    def _column(self, process: int) -> int:
        return self._places * (NAME_BYTES + COUNT.size * process)

    def _port(self, family: int, port: int) -> int:
        return self._relayed + (family != FAMILY_IPV4) * PORTS + port


def _names(project: str, credential: str) -> list[bytes]:
    """What to count an allocation under: its project, and its credential where it has one."""
    texts = [project, f"{project}/{credential}"] if credential else [project]
    return [blake2b(text.encode(), digest_size=NAME_BYTES).digest() for text in texts]
