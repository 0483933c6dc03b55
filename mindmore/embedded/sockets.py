"""Where the unix sockets are: a private directory whose path every client can take."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

SOCKET_PATH_MAX_BYTES = 107  # unix(7): sun_path holds 108, the last one is NUL
LONGEST_NAME = ".s.PGSQL.5432"
# Without a comma, which libpq takes for the end of a host's name, or what means something in a URL.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._ -]+")


def socket_directory(wanted: Path) -> Path:
    """Make `wanted` (mode 700), or where its path is too long for a socket or has characters that
    mean something, a link there to a private directory with a short path. Returns the directory to
    use.
    """
    length = len(os.fsencode(wanted / LONGEST_NAME))
    if length <= SOCKET_PATH_MAX_BYTES and PLAIN_PATH.fullmatch(str(wanted)):
        wanted.mkdir(mode=0o700, exist_ok=True)
        return wanted
    if wanted.is_symlink():
        target = wanted.readlink()
        if _is_private(target):
            return target
        wanted.unlink()
    target = Path(tempfile.mkdtemp(prefix="mindmore-", dir="/tmp"))
    wanted.symlink_to(target)
    return target


def socket_directory_remove(wanted: Path) -> None:
    """Remove what `socket_directory` made elsewhere."""
    if wanted.is_symlink():
        shutil.rmtree(wanted.readlink(), ignore_errors=True)
        wanted.unlink()


def _is_private(directory: Path) -> bool:
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    mode = stat.S_IMODE(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and mode == 0o700
