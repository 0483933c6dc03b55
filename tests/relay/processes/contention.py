"""Processes that take and give back as fast as they can; one after the other is killed.

Prints how often one was let in and how often refused, and how many are held at the end. Fails where
more were let in at once than may be: each notes itself in memory that all of them see.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from struct import Struct

from relay.shared_holdings import SharedHoldings

PROCESSES = 4
ALLOWED = 3
TURNS = 3000
KILLS = 20
COUNTERS = Struct("=III")  # inside, taken, refused; one of each for every process


def contend(holdings: SharedHoldings, process: int, seen: mmap.mmap) -> None:
    """Take and give back, and look how many are inside."""
    holdings.enter(process)
    at = process * COUNTERS.size
    _, taken, refused = COUNTERS.unpack_from(seen, at)
    inside = 0
    for turn in range(TURNS):
        if holdings.take("prj_a", f"crd_{turn % 3}", ALLOWED, None) is not None:
            refused += 1
            COUNTERS.pack_into(seen, at, inside, taken, refused)
            continue
        taken, inside = taken + 1, 1
        COUNTERS.pack_into(seen, at, inside, taken, refused)
        total = sum(COUNTERS.unpack_from(seen, n * COUNTERS.size)[0] for n in range(PROCESSES))
        if total > ALLOWED:
            os._exit(3)
        if turn % 7 == 0:
            time.sleep(0.0001)
        inside = 0
        COUNTERS.pack_into(seen, at, inside, taken, refused)
        holdings.give_back("prj_a", f"crd_{turn % 3}")


def forked(holdings: SharedHoldings, process: int, seen: mmap.mmap) -> int:
    pid = os.fork()
    if not pid:
        try:
            contend(holdings, process, seen)
        except BaseException:
            os._exit(2)
        os._exit(0)
    return pid


def main() -> int:
    """Let them contend; kill one after the other and give back what it held."""
    holdings = SharedHoldings(processes=PROCESSES, allocations_max=8)
    seen = mmap.mmap(-1, COUNTERS.size * PROCESSES)
    pids = [forked(holdings, process, seen) for process in range(PROCESSES)]
    for kill in range(KILLS):
        time.sleep(0.02)
        process = kill % PROCESSES
        os.kill(pids[process], signal.SIGKILL)
        _, status = os.waitpid(pids[process], 0)
        if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
            return 1
        _, taken, refused = COUNTERS.unpack_from(seen, process * COUNTERS.size)
        COUNTERS.pack_into(seen, process * COUNTERS.size, 0, taken, refused)
        holdings.forget(process, (50000, 50099))
        pids[process] = forked(holdings, process, seen)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    counted = [COUNTERS.unpack_from(seen, n * COUNTERS.size) for n in range(PROCESSES)]
    taken, refused = (sum(each[index] for each in counted) for index in (1, 2))
    sys.stdout.write(f"{taken} {refused} {holdings.held('prj_a')}\n")
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
