"""Several relay processes behind the same addresses, and their parent.

    parent ── binds, forks, waits ──┬── process 0   its sockets, its part of the relayed ports
                                    ├── process 1
                                    └── ...

The parent serves nobody: it has no event loop and no thread, so that it can fork at any time. It
holds the listening sockets open. When a process ends that the parent did not tell to, well or not,
the calls of the others go on, what it held is given back, and the next one takes its sockets and
ports: without one, the clients of its networks would wait there for ever.

    SIGTERM, SIGINT ──▶ parent ── SIGTERM ──▶ all        SIGHUP ──▶ parent ── SIGHUP ──▶ all
    kill -9 of the parent ── SIGTERM from the kernel, and SIGKILL for what hangs ──▶ all
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from relay.clock import STEADY
from relay.config import RelayConfig
from relay.core.holdings import Holdings
from relay.log import LOG_FACTS, fault_facts, log, log_install
from relay.machine import RelayFailedError, RelayStartError, listen_failed
from relay.shared_holdings import SharedHoldings
from relay.transports.listening import (
    Endpoints,
    ListenError,
    endpoints_bind,
    endpoints_close,
)

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None, use_errno=True)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
PORTS_MIN = 2  # an even port and its neighbour (EVEN-PORT)
DELAY_SECONDS_MIN = 0.25
DELAY_SECONDS_MAX = 30.0
STABLE_SECONDS = 60.0  # who ran so long is started again with the shortest delay
END_SECONDS_MAX = 10.0  # what has not ended so long after it was told to is killed
REASON_BYTES_MAX = 4096

Serve = Callable[[RelayConfig, Endpoints, Holdings], None]


@dataclass
class Child:
    """One of the processes.

    Attributes:
        pid: None while it does not run.
        reasons: where it says why it cannot start; our end of a pipe.
        starts_at: when it is to be started (again); None while it runs, or is not to be.
        restarts: how often it was.
    """

    number: int
    pid: int | None = None
    reasons: int = -1
    started_at: float = 0.0
    starts_at: float | None = None
    delay_seconds: float = DELAY_SECONDS_MIN
    restarts: int = 0


def run_processes(config: RelayConfig, serve: Serve) -> None:
    """Run the processes of a relay until the last one has ended.

    Args:
        config: of the whole relay.
        serve: runs one of them, in a process of its own: given its own configuration, its
            listening sockets, and what it holds together with the others.

    Raises:
        RelayStartError: it cannot work so, an address cannot be bound, or a process not start.
        RelayFailedError: a process did not end well when it was told to.
    """
    log_install()
    processes_check(config)
    try:
        endpoints = endpoints_bind(config.listen_endpoints, config.processes)
    except ListenError as error:
        raise listen_failed(error) from error
    low, high = config.turn.relay_ports
    holdings = SharedHoldings(
        processes=config.processes,
        allocations_max=(high + 1 - low) * len(config.turn.relay_addresses),
    )
    try:
        Processes(config, serve, endpoints, holdings).run()
    finally:
        endpoints_close(endpoints)
        holdings.close()


def processes_check(config: RelayConfig) -> None:
    """Refuse what cannot work with several processes.

    Raises:
        RelayStartError: it says what to set.
    """
    several = f"MINDMORE_TURN_PROCESSES is {config.processes}"
    if config.turn.mobility:
        raise RelayStartError(
            f"{several}, and a call that changes its network would come to another process: set"
            " MINDMORE_TURN_MOBILITY=off, or MINDMORE_TURN_PROCESSES=1"
        )
    low, high = config.turn.relay_ports
    if (high - low % 2 - low + 1) // PORTS_MIN < config.processes:
        raise RelayStartError(
            f"{several}, and there are too few relayed ports to divide: set"
            f" MINDMORE_TURN_RELAY_PORTS to {PORTS_MIN * config.processes + 1} ports or more"
        )


class Processes:
    """The processes of one relay, from the first to the last."""

    def __init__(
        self,
        config: RelayConfig,
        serve: Serve,
        endpoints: list[Endpoints],
        holdings: SharedHoldings,
    ) -> None:
        self._config = config
        self._serve = serve
        self._endpoints = endpoints
        self._holdings = holdings
        self._children = [Child(number) for number in range(config.processes)]
        self._life = os.pipe()  # only the parent keeps its second end: who reads the end is alone
        self._stopping = False
        self._kill_at: float | None = None
        self._start_failure = ""
        self._failure = ""

    def run(self) -> None:
        """See `run_processes`."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        gc.collect()
        gc.freeze()  # what nobody touches is not copied
        try:
            for child in self._children:
                self._start(child)
            while any(child.pid or child.starts_at is not None for child in self._children):
                self._take_signal()
                self._keep_time(STEADY())
        finally:
            self._signal_all(signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for end in self._life:
                os.close(end)
        if self._start_failure:
            raise RelayStartError(self._start_failure)
        if self._failure:
            raise RelayFailedError(self._failure)

    # --- what happens -----------------------------------------------------------------------------

    def _take_signal(self) -> None:
        """Wait for a signal or the next deadline."""
        waits = [child.starts_at for child in self._children if child.starts_at is not None]
        if self._kill_at is not None:
            waits.append(self._kill_at)
        if waits:
            taken = signal.sigtimedwait(SIGNALS, max(0.0, min(waits) - STEADY()))
        else:
            taken = signal.sigwaitinfo(SIGNALS)
        if taken is None:
            return
        if taken.si_signo == signal.SIGCHLD:
            self._reap()
        elif taken.si_signo == signal.SIGHUP:
            self._signal_all(signal.SIGHUP)
        else:
            self._stop()

    def _keep_time(self, now: float) -> None:
        for child in self._children:
            if child.starts_at is not None and child.starts_at <= now:
                child.restarts += 1
                self._start(child)
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = None
            self._signal_all(signal.SIGKILL)

    def _stop(self) -> None:
        """End them all."""
        for child in self._children:
            child.starts_at = None
        self._signal_all(signal.SIGTERM)
        if not self._stopping:
            self._stopping = True
            self._kill_at = STEADY() + END_SECONDS_MAX

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid is not None:
                os.kill(child.pid, number)

    def _reap(self) -> None:
        """Take every process that has ended."""
        for child in self._children:
            if child.pid is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._ended(child, os.waitstatus_to_exitcode(status), STEADY())

    def _ended(self, child: Child, code: int, now: float) -> None:
        child.pid = None
        reason = os.read(child.reasons, REASON_BYTES_MAX).decode(errors="replace")
        os.close(child.reasons)
        ports = self._config.for_process(child.number).turn.relay_ports
        self._holdings.forget(child.number, ports)
        if self._stopping and code in (0, -signal.SIGTERM):
            return
        if reason and not child.restarts:  # it never worked
            self._start_failure = self._start_failure or reason
            self._stop()
            return
        how = how_ended(code)
        log("relay_process_ended", level="error", process=child.number, how=how, reason=reason)
        if self._stopping:
            self._failure = f"process {child.number} {how} while it ended"
        else:
            if now - child.started_at > STABLE_SECONDS:
                child.delay_seconds = DELAY_SECONDS_MIN
            child.starts_at = now + child.delay_seconds
            child.delay_seconds = min(2 * child.delay_seconds, DELAY_SECONDS_MAX)

    # --- one process ------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        child.starts_at = None
        child.started_at = STEADY()
        child.reasons, reasons_writer = os.pipe()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # too many processes just now
            os.close(child.reasons)
            os.close(reasons_writer)
            reason = str(error.strerror)
            log("relay_process_not_started", level="error", process=child.number, reason=reason)
            child.starts_at = child.started_at + DELAY_SECONDS_MAX
            return
        if pid:
            os.close(reasons_writer)
            child.pid = pid
            return
        code = 1
        try:
            code = self._be(child, parent, reasons_writer)
        finally:
            os._exit(code)

    def _be(self, child: Child, parent: int, reasons: int) -> int:
        """Be one of the processes, to its end.

        Returns:
            The exit code.
        """
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM.value, 0, 0, 0)
        if os.getppid() != parent:  # it was gone before we could say so
            return 1
        os.close(self._life[1])
        threading.Thread(target=self._outlive_no_parent, name="orphan", daemon=True).start()
        # Nobody is served yet: who ends us now need not be asked for patience.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        # SIGHUP waits until somebody hears it (`Runner.run`): settings are read before.
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGHUP})
        LOG_FACTS["process"] = child.number
        mine = self._endpoints[child.number]
        endpoints_close([each for each in self._endpoints if each is not mine])
        self._holdings.enter(child.number)
        try:
            self._serve(self._config.for_process(child.number), mine, self._holdings)
        except (RelayStartError, ValueError) as error:
            os.write(reasons, str(error).encode()[:REASON_BYTES_MAX])
            return 1
        except RelayFailedError:  # it has said why
            return 1
        except Exception as error:
            log("relay_failed", level="error", **fault_facts(error))
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return 0

    def _outlive_no_parent(self) -> None:
        """The kernel asks a process to end with its parent; one that hangs is ended."""
        os.read(self._life[0], 1)
        time.sleep(END_SECONDS_MAX)
        os.kill(os.getpid(), signal.SIGKILL)


def how_ended(code: int) -> str:
    """What an exit code says of a process that was not told to end."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return "failed" if code else "was told to end by somebody else"
