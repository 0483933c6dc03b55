"""Whether a server makes allocations: `python -m tests.bench.probe HOST PORT SECRET` ends in 0."""

from __future__ import annotations

import sys
from time import CLOCK_REALTIME, clock_gettime

from tests.turn_client import TurnClient, credentials_mint


def main() -> None:
    """Make an allocation and delete it."""
    host, port, secret = sys.argv[1:]
    expires_at = int(clock_gettime(CLOCK_REALTIME)) + 60
    username, password = credentials_mint(secret, f"{expires_at}:prj_bench/crd_probe")
    with TurnClient((host, int(port)), username, password, timeout_seconds=0.3) as client:
        client.allocate()
        client.refresh(0)


if __name__ == "__main__":
    main()
