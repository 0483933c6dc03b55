"""From the counters of a running relay to a snapshot, in its own event loop.

Ten thousand allocations are added up in steps, and between them packets get their turn.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from relay.core.allocation import Allocation
from relay.core.drops import DROP_REASONS
from relay.core.turn import TurnServer
from relay.metering.journal import Journal
from relay.transports.clients import ClientTransports
from relay.transports.peers import PeerStreams
from relay.version import VERSION
from relay.watching.metrics import (
    BYTE_DIRECTIONS,
    CLASSES,
    FAMILIES,
    METHODS,
    OTHER,
    PACKET_DIRECTIONS,
    Values,
    label,
    zeros,
)
from relay.watching.snapshot import RelayState, Snapshot
from relay.watching.tally import Sums, Tally, Way, counters_sum, way_of
from relay.watching.watchdog import Watchdog

STEP_ALLOCATIONS: Final = 512
# Flushed every five seconds; after three missed ones its disk hangs.
JOURNAL_SECONDS_MAX: Final = 15.0
FILES_OPEN: Final = Path("/proc/self/fd")
MEMORY: Final = Path("/proc/self/statm")
STATM_BYTES_MAX: Final = 256


class Observation:
    """What is read of one relay; everything here belongs to its event loop."""

    def __init__(
        self,
        *,
        process: int,
        turn: TurnServer,
        clients: ClientTransports,
        peers: PeerStreams,
        journal: Journal,
        tally: Tally,
        watchdog: Watchdog,
        state: Callable[[], RelayState],
    ) -> None:
        self._process = process
        self._turn = turn
        self._clients = clients
        self._peers = peers
        self._journal = journal
        self._tally = tally
        self._watchdog = watchdog
        self._state = state

    async def snapshot(self) -> Snapshot:
        """Everything but what belongs to the whole process."""
        found = Snapshot(self._process, zeros())
        # Past and present are taken in one go: what ends from here on still counts as living.
        past, live = self._tally.past, self._turn.table.by_listener()
        self._own_state(found)
        self._answers(found)
        self._resources(found)
        await _relayed(found, past, live)
        return found

    def _own_state(self, found: Snapshot) -> None:
        state = self._state()
        found.set("up", 1)
        found.set("build_info", 1, VERSION, platform.python_version())
        found.set("draining", state.draining)
        found.set("cut_off", state.cut_off)
        if state.draining:
            found.unwell.append("it is draining")
        if state.cut_off:
            found.unwell.append("it is cut off from its control channel")
        age = time.monotonic() - self._journal.synced_at
        if self._journal.error is not None:
            found.unwell.append("the usage journal cannot be written")
        elif age > JOURNAL_SECONDS_MAX:
            found.unwell.append(f"the usage journal was last written {age:.0f} seconds ago")
        found.set("journal_writable", self._journal.error is None)
        found.set("journal_sync_age_seconds", age)
        found.set("journal_records_waiting", self._journal.records_waiting)
        found.set("journal_records_lost_total", self._journal.records_dropped)
        found.set("event_loop_longest_block_seconds", self._watchdog.longest_seconds)
        found.set("event_loop_blocks_total", self._watchdog.blocks)

    def _answers(self, found: Snapshot) -> None:
        tally = self._tally
        for (method, kind), count in self._turn.guard.received.items():
            found.add("messages_received_total", count, METHODS.get(method, OTHER), CLASSES[kind])
        for method, count in tally.successes.items():
            found.add("success_responses_total", count, METHODS.get(method, OTHER))
        for (method, code), count in tally.errors.items():
            found.add("error_responses_total", count, METHODS.get(method, OTHER), str(code))
        for outcome, count in tally.authentications.items():
            found.set("authentications_total", count, outcome)
        for reason, count in dropped_by_reason(self._turn.dropped).items():
            found.set("dropped_total", count, label(reason))

    def _resources(self, found: Snapshot) -> None:
        for family, (taken, free) in self._turn.table.ports.counts().items():
            found.set("ports", taken, FAMILIES[family], "in_use")
            found.set("ports", free, FAMILIES[family], "free")
        for transport, count in self._clients.counts().items():
            found.set("client_connections", count, transport)
        found.set("peer_connections", len(self._peers))
        for way, count in self._tally.started.items():
            found.set("allocations_started_total", count, *way)


def dropped_by_reason(dropped: Mapping[str, int]) -> Counter[str]:
    """What was dropped; a reason that is not in the list is counted as another one."""
    counted: Counter[str] = Counter()
    for reason, count in dropped.items():
        counted[reason if reason in DROP_REASONS else OTHER] += count
    return counted


async def _relayed(
    found: Snapshot,
    past: Mapping[Way, Sums],
    live: Mapping[tuple[str, tuple[str, int]], list[Allocation]],
) -> None:
    for way, sums in past.items():
        _count(found, way, sums)
    for listener, allocations in live.items():
        way = way_of(*listener)
        found.add("allocations", len(allocations), *way)
        for start in range(0, len(allocations), STEP_ALLOCATIONS):
            _count(found, way, counters_sum(allocations[start : start + STEP_ALLOCATIONS]))
            await asyncio.sleep(0)


def _count(found: Snapshot, way: Way, sums: Sums) -> None:
    """Add sums, which are in the order of the two lists of directions."""
    split = len(BYTE_DIRECTIONS)
    for direction, count in zip(BYTE_DIRECTIONS, sums[:split], strict=True):
        found.add("relayed_bytes_total", count, direction, *way)
    for direction, count in zip(PACKET_DIRECTIONS, sums[split:], strict=True):
        found.add("relayed_packets_total", count, direction, *way)


class ProcessFacts:
    """What belongs to the whole process; from any thread, also where no descriptor is left.

    To be made by the process itself: what its parent opened tells of the parent.
    """

    def __init__(self) -> None:
        self._started_at = process_started_at()
        self._memory = os.open(MEMORY, os.O_RDONLY | os.O_CLOEXEC)

    def values(self) -> Values:
        """The values of this moment."""
        files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = resource.getrusage(resource.RUSAGE_SELF)
        pages = int(os.pread(self._memory, STATM_BYTES_MAX, 0).split()[1])
        values = {
            "process_start_time_seconds": self._started_at,
            "process_resident_memory_bytes": pages * resource.getpagesize(),
            "process_cpu_seconds_total": used.ru_utime + used.ru_stime,
            "process_open_fds": files_open(files_max),
            "process_max_fds": files_max,
        }
        return {name: {(): float(value)} for name, value in values.items()}

    def close(self) -> None:
        """Give the file back."""
        os.close(self._memory)


def files_open(files_max: int) -> int:
    """How many files and sockets are open; newer kernels say it as the directory's size."""
    try:
        return FILES_OPEN.stat().st_size or len(os.listdir(FILES_OPEN))
    except OSError:  # none is left to look with
        return files_max


def process_started_at() -> float:
    """When this process began, unix seconds (proc(5), starttime)."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    now = time.clock_gettime(time.CLOCK_REALTIME)
    return now - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
