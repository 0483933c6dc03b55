"""A parent whose processes relay nothing: they say what happens to them, a line for each thing.

python -m tests.relay.processes.parent_probe PORT BEHAVIOUR BEHAVIOUR ...
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from relay import processes
from relay.config import RelayConfig
from relay.core.holdings import Holdings
from relay.machine import RelayFailedError, RelayStartError
from relay.processes import run_processes
from relay.transports.listening import Endpoints
from tests.relay.fake_link import settings_make

HOST = "127.0.0.1"
SLOW_SECONDS_MAX = 20.0


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def serve_as(behaviour: str, config: RelayConfig, endpoints: Endpoints) -> None:
    """Behave until SIGTERM."""
    number = config.process
    if behaviour == "cannot start":
        raise RelayStartError("this relay cannot start: set something")
    if behaviour == "ends well":
        say(number, "ends", os.getpid())
        return
    if behaviour == "crashes":
        say(number, "crashes", os.getpid())
        raise KeyError("secret words")
    if behaviour == "is slow to start":
        say(number, "starts", os.getpid())
        deadline = time.monotonic() + SLOW_SECONDS_MAX
        while signal.SIGHUP not in signal.sigpending() and time.monotonic() < deadline:
            time.sleep(0.02)
    stopped: list[int] = []
    if behaviour != "is stubborn":
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, lambda *_: say(number, "reloads", os.getpid()))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # as `Runner.run` does
    (datagrams, streams), *_ = endpoints.values()
    names = os.fspath(Path(f"/proc/self/fd/{datagrams.fileno()}").readlink()), streams.getsockname()
    say(number, "serves", os.getpid(), names[0])
    while not stopped:
        time.sleep(0.02)
    say(number, "stops", os.getpid())


def main(port: str, *behaviours: str) -> int:
    """Be the parent."""
    processes.END_SECONDS_MAX = 1.0
    config = RelayConfig(
        node="node-1",
        listen_addresses=(HOST,),
        listen_port=int(port),
        journal_directory=Path("/nonexistent"),
        flush_interval_seconds=5,
        turn=settings_make(mobility=False),
        processes=len(behaviours),
    )

    def serve(mine: RelayConfig, endpoints: Endpoints, _: Holdings) -> None:
        serve_as(behaviours[mine.process], mine, endpoints)

    try:
        run_processes(config, serve)
    except (RelayStartError, RelayFailedError) as error:
        say(type(error).__name__, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
