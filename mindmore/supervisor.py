"""Starts child processes, waits until each is ready, starts again what crashes, ends them all.

One thread, one loop: it sleeps until a child writes a line, a child ends, or a signal comes. It
loads no Django, so that it stays small beside what it watches.

A child tells that it is ready in one of two ways: a probe that asks it from outside, or a line on
the descriptor that `MINDMORE_READY_FD` names (`notify_ready` in a child's own code).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from mindmore.processes import Command, StartError, spawn

READY_FD = "MINDMORE_READY_FD"
POLL_SECONDS = 0.05
DELAY_SECONDS_MIN = 0.5
DELAY_SECONDS_MAX = 30.0
STABLE_SECONDS = 60.0  # a child that ran so long starts with the shortest delay again
LINE_BYTES_MAX = 8192
COMMAND_ERROR = "CommandError: "  # so Django begins a line that is for people


class StopRequested(Exception):  # noqa: N818 - not an error
    """Someone asked us to end (Ctrl-C, SIGTERM, a closed terminal)."""


def notify_ready() -> None:
    """Tell the supervisor, where there is one, that this process is ready."""
    descriptor = os.environ.get(READY_FD)
    if descriptor:
        os.write(int(descriptor), b"\n")


@dataclass
class Child:
    """A command and its present process."""

    command: Command
    probe: Callable[[], bool] | None
    process: subprocess.Popen[bytes]
    started_at: float
    ready: bool = False
    announced: bool = True  # whether people know how it is
    delay_seconds: float = DELAY_SECONDS_MIN
    starts_at: float | None = None  # when it is to be started again
    last_line: str = ""
    # Until it is ready: what it says last is said with its end, where it ends.
    holds_last_line: bool = True
    held: str = ""  # not said yet
    pipes: list[Pipe] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What people call it."""
        return self.command.name

    @property
    def running(self) -> bool:
        """Whether its process has not ended yet."""
        return self.process.returncode is None

    @property
    def reason(self) -> str:
        """Why its process ended."""
        code = self.process.returncode
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        why = self.last_line.removeprefix(COMMAND_ERROR)
        return f"ended with exit code {code}" + (f": {why}" if why else "")


@dataclass
class Pipe:
    """Our end of a pipe that a child writes to."""

    descriptor: int
    receive: Callable[[bytes], None]
    rest: bytes = b""


class Supervisor:
    """The processes of one service.

    Args:
        say: prints a line; gets the name of who says it, and the line.
        inherit: descriptors that every child keeps open.
    """

    def __init__(self, say: Callable[[str, str], None], inherit: Sequence[int] = ()) -> None:
        self.say = say
        self.inherit = inherit
        self.children: list[Child] = []
        self.stop_requested = False
        self.reload_requested = False
        self.selector = selectors.DefaultSelector()
        self.wakeup, wakeup_writer = socket.socketpair()
        self.wakeup.setblocking(False)
        wakeup_writer.setblocking(False)
        self.wakeup_writer = wakeup_writer
        self.selector.register(self.wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(wakeup_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_stop)
        # From a terminal it means that this was closed; from a service manager, to reload.
        signal.signal(signal.SIGHUP, self._note_stop if os.isatty(0) else self._note_reload)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def start(self, command: Command, probe: Callable[[], bool] | None = None) -> Child:
        """Start one child and come back at once.

        Args:
            probe: whether it is ready, asked often and from outside; None where it tells by itself.
        """
        process, pipes = self._spawn(command, tells=probe is None)
        child = Child(command, probe, process, time.monotonic(), pipes=pipes)
        self._listen(child)
        self.children.append(child)
        return child

    def run_to_end(self, command: Command) -> None:
        """Run one child until it ends.

        Raises:
            StartError: it ended with another exit code than 0; the text is its last line, which
                is not printed then.
        """
        child = self.start(command, lambda: False)
        while child.running:
            self._turn(None)
            self._raise_when_asked_to_stop()
        self._close(child)
        self.children.remove(child)
        if child.process.returncode:
            why = child.last_line.removeprefix(COMMAND_ERROR)
            raise StartError(why or f"{child.name} {child.reason}")
        self._say_held(child)

    def wait_until_ready(self, children: Iterable[Child], seconds_max: float) -> None:
        """Come back when all `children` are ready.

        Raises:
            StartError: one ended, or the time is over.
            StopRequested: someone asked us to end.
        """
        deadline = time.monotonic() + seconds_max
        waiting = list(children)
        while waiting:
            self._turn(POLL_SECONDS)
            self._raise_when_asked_to_stop()
            for child in waiting:
                if not child.running:
                    raise StartError(f"{child.name} {child.reason}")
            for child in [child for child in waiting if self._probe(child)]:
                waiting.remove(child)
                self._say_held(child)
            if waiting and time.monotonic() > deadline:
                names = ", ".join(child.name for child in waiting)
                raise StartError(f"{names}: not ready after {seconds_max:.0f} seconds")

    def watch(self) -> None:
        """Start again what ends, until someone asks us to end."""
        while not self.stop_requested:
            self._turn(self._seconds_to_next_deadline())
            if self.reload_requested:
                self._reload()
            now = time.monotonic()
            for child in self.children:
                if not child.running:
                    self._revive(child, now)
                elif not child.announced and self._probe(child):
                    self.say(child.name, "is ready again")
                    child.announced = True

    def stop(self, stages: Sequence[tuple[Sequence[str], float]], seconds_max: float) -> None:
        """End all children, stage by stage.

        Args:
            stages: names of children, and how many seconds after our beginning the next stage
                begins at the latest.
            seconds_max: after so many seconds what is left is killed.
        """
        beginning = time.monotonic()
        for names, seconds in stages:
            stage = [child for child in self.children if child.name in names]
            for child in stage:
                self._signal(child, child.command.end_signal)
            self._wait_for_ends(stage, beginning + seconds)
        self._wait_for_ends(self.children, beginning + seconds_max)
        for child in self.children:
            if child.running:
                self.say(child.name, "did not end in time and is killed")
                self._signal(child, signal.SIGKILL)
        self._wait_for_ends(self.children, beginning + seconds_max + 1)

    # --- the loop -----------------------------------------------------------------------------

    def _turn(self, seconds_max: float | None) -> None:
        """Sleep until something happens, take in what children wrote and which have ended."""
        for key, _ in self.selector.select(seconds_max):
            if key.data is None:
                self.wakeup.recv(4096)
            else:
                self._read(key.data)
        self._reap()

    def _seconds_to_next_deadline(self) -> float | None:
        if any(child.running and not child.ready for child in self.children):
            return POLL_SECONDS * 4
        starts = [child.starts_at for child in self.children if child.starts_at is not None]
        return max(0.0, min(starts) - time.monotonic()) if starts else None

    def _wait_for_ends(self, children: Sequence[Child], deadline: float) -> None:
        while any(child.running for child in children) and time.monotonic() < deadline:
            self._turn(max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))

    def _note_stop(self, _number: int, _frame: object) -> None:
        self.stop_requested = True

    def _note_reload(self, _number: int, _frame: object) -> None:
        self.reload_requested = True

    def _reload(self) -> None:
        """Have those that can read their configuration again."""
        self.reload_requested = False
        for child in self.children:
            if child.command.reloads:
                self._signal(child, signal.SIGHUP)

    def _raise_when_asked_to_stop(self) -> None:
        if self.stop_requested:
            raise StopRequested

    # --- one child ----------------------------------------------------------------------------

    def _spawn(
        self, command: Command, *, tells: bool
    ) -> tuple[subprocess.Popen[bytes], list[Pipe]]:
        """Start a process with a pipe for its output, and one to tell that it is ready."""
        output, output_writer = os.pipe()
        ready, ready_writer = os.pipe()
        inherit = [*self.inherit]
        if tells:
            environment = {**command.environment, READY_FD: str(ready_writer)}
            command = replace(command, environment=environment)
            inherit.append(ready_writer)
        try:
            process = spawn(command, output=output_writer, inherit=inherit)
        except StartError:
            os.close(output)
            os.close(ready)
            raise
        finally:
            os.close(output_writer)
            os.close(ready_writer)
        return process, [Pipe(output, lambda _: None), Pipe(ready, lambda _: None)]

    def _listen(self, child: Child) -> None:
        output, ready = child.pipes
        output.receive = lambda line: self._take_line(child, line)
        ready.receive = lambda _: setattr(child, "ready", True)
        for pipe in child.pipes:
            os.set_blocking(pipe.descriptor, False)
            self.selector.register(pipe.descriptor, selectors.EVENT_READ, pipe)

    def _take_line(self, child: Child, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text and not any(word in text for word in child.command.noise):
            if not child.holds_last_line:
                self.say(child.name, text)
            elif child.held:
                self.say(child.name, child.held)
            child.held = text if child.holds_last_line else ""
            child.last_line = text.strip()

    def _say_held(self, child: Child) -> None:
        """Hold back nothing any more."""
        child.holds_last_line = False
        if child.held:
            self.say(child.name, child.held)
            child.held = ""

    def _read(self, pipe: Pipe) -> bool:
        """Take what is there to be read; whether there was something."""
        try:
            chunk = os.read(pipe.descriptor, 65536)
        except BlockingIOError:
            return False
        *lines, pipe.rest = (pipe.rest + chunk).split(b"\n")
        if not chunk or len(pipe.rest) > LINE_BYTES_MAX:
            lines, pipe.rest = ([*lines, pipe.rest] if pipe.rest else lines), b""
        for line in lines:
            pipe.receive(line)
        if not chunk:
            self.selector.unregister(pipe.descriptor)
            os.close(pipe.descriptor)
            pipe.descriptor = -1
        return bool(chunk)

    def _reap(self) -> None:
        """Take every ended process, also those of others that were left to us (as process 1)."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children:
                if child.process.pid == pid:
                    child.process.returncode = os.waitstatus_to_exitcode(status)
                    self._drain(child)

    def _drain(self, child: Child) -> None:
        """Read what an ended child has left in its pipes."""
        for pipe in child.pipes:
            while pipe.descriptor >= 0 and self._read(pipe):
                pass

    def _probe(self, child: Child) -> bool:
        if child.probe is not None and not child.ready:
            child.ready = child.probe()
        return child.ready

    def _revive(self, child: Child, now: float) -> None:
        """Plan the next start of an ended child, or start it when its time has come."""
        if child.starts_at is None:
            if now - child.started_at > STABLE_SECONDS:
                child.delay_seconds = DELAY_SECONDS_MIN
            self._close(child)
            child.ready = child.announced = False
            self._plan_start(child, now, child.reason)
        elif child.starts_at <= now:
            try:
                process, pipes = self._spawn(child.command, tells=child.probe is None)
            except (StartError, OSError) as error:  # too many processes, or open files, just now
                self._plan_start(child, now, str(error))
                return
            child.process, child.pipes = process, pipes
            child.starts_at = None
            child.started_at = now
            child.last_line = ""
            self._listen(child)

    def _plan_start(self, child: Child, now: float, reason: str) -> None:
        """Say why it does not run, and wait twice as long as before its last start."""
        self.say(child.name, f"{reason}; starting it again in {child.delay_seconds:g} seconds")
        child.starts_at = now + child.delay_seconds
        child.delay_seconds = min(child.delay_seconds * 2, DELAY_SECONDS_MAX)

    def _close(self, child: Child) -> None:
        """Let go of pipes that a grandchild may still hold."""
        for pipe in child.pipes:
            if pipe.descriptor >= 0:
                self.selector.unregister(pipe.descriptor)
                os.close(pipe.descriptor)
                pipe.descriptor = -1

    def _signal(self, child: Child, number: signal.Signals) -> None:
        if child.running:
            os.kill(child.process.pid, number)
