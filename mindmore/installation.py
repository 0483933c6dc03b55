"""The data directory of one installation, `MINDMORE_HOME`.

env           secrets, generated once; more settings where people add them (mode 600)
addresses     the PostgreSQL and the Valkey of `manage.py up` (mode 600)
demo.json     what the demo organisation logs in with (mode 600)
lock          held by `manage.py up`
children.lock held by `manage.py up` and everything that it started
postgresql/ valkey/ run/ journal/ beat/ static/
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from mindmore.environment import ADDRESSES_FILE, ENV_FILE, Environment
from mindmore.processes import StartError

SECRET_NAMES = ("MINDMORE_SECRET_KEY", "MINDMORE_TURN_SECRETS", "MINDMORE_TURN_NONCE_KEYS")
SECRET_BYTES = 48
CHILDREN_END_SECONDS_MAX = 10.0


def home_create(home: Path) -> None:
    """Make the data directory (mode 700).

    Raises:
        StartError: it can't be made, or not be written to.
    """
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
        for name in ("journal", "beat", "static"):
            (home / name).mkdir(mode=0o700, exist_ok=True)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError(0, "Permission denied")
    except OSError as error:
        raise StartError(
            f"cannot write to the data directory {home} ({error.strerror}): set MINDMORE_HOME to a "
            "directory that this account may write to"
        ) from error


def home_lock(home: Path) -> int:
    """Make sure that this is the only `manage.py up` of `home`, and that nothing is left of the
    one before.

    Returns:
        A descriptor for every child to keep open: while one lives, `home` is in use.

    Raises:
        StartError: another one runs, or what it started does.
    """
    lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        process = os.read(lock, 16).decode() or "?"
        raise StartError(
            f"Mindmore already runs from {home} (process {process}): stop it first, or give this "
            "one its own MINDMORE_HOME, MINDMORE_WEB_PORT and MINDMORE_TURN_PORT"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    children = os.open(home / "children.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + CHILDREN_END_SECONDS_MAX
    while True:
        try:
            fcntl.flock(children, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return children
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise StartError(
                    f"processes of an earlier start still use {home}: end them (they are listed by "
                    f"`fuser {home / 'children.lock'}`), then start again"
                ) from error
            time.sleep(0.05)


def secrets_create(env: Environment) -> None:
    """Generate what nobody has set into `$MINDMORE_HOME/env`; what is there stays."""
    missing = [name for name in SECRET_NAMES if not env.text(name, "")]
    if missing:
        path = env.home / ENV_FILE
        before = path.read_text() if path.exists() else ""
        lines = [f"{name}={secrets.token_urlsafe(SECRET_BYTES)}\n" for name in missing]
        file_write(path, before + "".join(lines))


def addresses_write(home: Path, addresses: Mapping[str, str]) -> None:
    """Note where this installation's own servers are."""
    lines = [f"{name}={address}\n" for name, address in addresses.items()]
    file_write(home / ADDRESSES_FILE, "".join(lines))


def file_write(path: Path, text: str) -> None:
    """Replace the file `path` (mode 600) at once and for good: there is never half of it."""
    half = path.with_name(f".{path.name}.new")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    half.rename(path)
