"""File descriptors: clients may not have them all, or no usage could be written down.

The kernel gives out the lowest number that is free, so a number says how many are in use.
"""

from __future__ import annotations

import errno
import os
import resource

KEPT_MAX = 64
KEPT_PART = 8  # of a low limit an eighth is kept


def is_kept(descriptor: int) -> bool:
    """Whether it is one of the last, which are for the journal, the database and Valkey."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return descriptor >= limit - min(limit // KEPT_PART, KEPT_MAX)


def kept_refuse(descriptor: int) -> None:
    """Refuse a client what is kept.

    Raises:
        OSError: EMFILE, as where none is left at all.
    """
    if is_kept(descriptor):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
