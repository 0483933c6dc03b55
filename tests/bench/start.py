"""How long `manage.py up` takes until it is ready, how long to end, and what it weighs idle.

    python -m tests.bench.start [--starts N]

The first start makes database, secrets and demo; the next ones find them. Goals: the first within
60 seconds (what pip installs before it is not in here), the next within 10, the end within 5, all
processes together at most 512 MB of resident memory.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep

from tests.stack import Stack

FIRST_SECONDS_MAX = 60.0
NEXT_SECONDS_MAX = 10.0
END_SECONDS_MAX = 5.0
RSS_MEGABYTES_MAX = 512.0
SETTLE_SECONDS = 5.0
END_SECONDS_WAITED = 30.0


def measure(starts: int) -> list[tuple[str, float, float, str]]:
    """What was measured: name, value, goal and unit."""
    with tempfile.TemporaryDirectory(prefix="mmbench-") as directory:
        stack = Stack(Path(directory) / "home")
        ready, ended, rss = [], [], []
        try:
            for _ in range(starts):
                begun = perf_counter()
                stack.start_and_wait()
                ready.append(perf_counter() - begun)
                sleep(SETTLE_SECONDS)
                rss.append(sum(stack.asked(lambda each: each.memory_info().rss)) / 1e6)
                begun = perf_counter()
                stack.signal(signal.SIGTERM)
                stack.wait(END_SECONDS_WAITED)
                ended.append(perf_counter() - begun)
        finally:
            stack.close()
    return [
        ("the first start", ready[0], FIRST_SECONDS_MAX, "s"),
        ("the slowest of the next", max(ready[1:]), NEXT_SECONDS_MAX, "s"),
        ("the slowest end", max(ended), END_SECONDS_MAX, "s"),
        ("resident memory, idle", max(rss), RSS_MEGABYTES_MAX, "MB"),
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Measure; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.start", description=__doc__)
    parser.add_argument("--starts", type=int, default=4, help="how often, 2 or more")
    options = parser.parse_args(words)
    if options.starts < 2:
        parser.error("--starts: 2 or more, the first one makes what the next ones find")
    missed = 0
    for name, value, goal, unit in measure(options.starts):
        missed += value > goal
        verdict = "FAIL" if value > goal else "PASS"
        sys.stdout.write(f"{name:<26}{value:8.1f} {unit:<3} at most {goal:.0f}  {verdict}\n")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
