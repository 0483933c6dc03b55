"""Garbage collection without a pause that a call could hear.

Looking at every object takes 60 ms because of Django alone, and 2 ms more for every thousand
allocations, refusals or limits that are kept. So what is there at the start is never looked at
again, young objects are looked at as ever, and all the others while there are few of these. Objects
that hold each other in a circle would wait until then: the relay makes none (tests/relay/endurance
looks for them).
"""

from __future__ import annotations

import gc

COLLECT_SECONDS = 60.0
KEPT_MAX = 2000
_NEVER = 2**31 - 1


def settle() -> None:
    """What is there by now stays: to be called once, before the first client."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


def collect_if_quiet(kept: int) -> None:
    """Look for garbage everywhere, where so many objects that are kept leave the time for it."""
    if kept <= KEPT_MAX:
        gc.collect()
