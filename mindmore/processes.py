"""Child processes that never outlive their parent.

A command says everything about one child: what runs, as whom, with which environment, how it is
asked to end, and which signal the kernel sends it when the parent is gone without having asked
(kill -9 of `manage.py up` or of pytest).
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """Something that keeps the service from starting; the text is one line that says what to do."""


@dataclass(frozen=True)
class Account:
    """An account of the operating system."""

    name: str
    uid: int
    gid: int

    @classmethod
    def unprivileged(cls) -> Account | None:
        """The account for programs that refuse to run as root; None where we are not root."""
        if os.geteuid() != 0:
            return None
        entry = pwd.getpwnam("nobody")
        return cls(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


@dataclass(frozen=True)
class Command:
    """One child process, not started yet.

    Args:
        name: what people call it.
        argv: the program and its arguments; never a secret, everyone can read them.
        environment: the child's whole environment.
        directory: where it runs; one that `account` may pass through.
        account: who runs it; None for ourselves.
        end_signal: what asks it to end.
        orphan_signal: what the kernel sends when the parent is gone.
        noise: words by which to know lines that tell nobody anything.
        reloads: whether SIGHUP has it read its configuration again.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: Path = Path("/")
    account: Account | None = None
    end_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    noise: Sequence[str] = ()
    reloads: bool = False


def spawn(
    command: Command, *, output: int | None, inherit: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own, so that Ctrl-C reaches only the parent.

    Args:
        output: where standard output and error go (a descriptor or subprocess.DEVNULL);
            None for ours.
        inherit: descriptors that the child keeps under the same numbers.

    Raises:
        StartError: the program can't be started.
    """
    account = command.account
    try:
        return subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(command.environment),
            cwd=command.directory,
            pass_fds=inherit,
            process_group=0,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=tie(command.orphan_signal),
        )
    except (OSError, subprocess.SubprocessError) as error:
        as_whom = f" as {account.name}" if account else ""
        raise StartError(f"cannot start {command.name}{as_whom}: {error}") from error


def end_with_parent(signal_number: signal.Signals) -> None:
    """Have the kernel send `signal_number` to this process when its parent is gone."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal_number.value, 0, 0, 0)


def tie(signal_number: signal.Signals) -> Callable[[], None]:
    """What a child does just before it becomes the program: after its change of user, which would
    take the wish back.
    """
    parent = os.getpid()

    def before_the_program() -> None:
        end_with_parent(signal_number)
        if os.getppid() != parent:  # it was gone before we could say so
            os._exit(1)

    return before_the_program


def anyone_can_reach(path: Path) -> bool:
    """Whether every account may pass through `path` and all directories above it.

    Judged by the mode bits alone: an access list that says more is not trusted.
    """
    path = path.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))
