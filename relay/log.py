"""The relay's log: one JSON object a line on standard error.

    {"time": "2026-01-02T03:04:05.678+00:00", "level": "info", "event": "relay_started", …}

Never an address, a username, a secret or payload: neither in what the relay says itself, nor in
what a library says. Of a fault it tells the type and the place, not the message, which may hold a
value. The events stand in docs/operating.md.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Final, Literal

Level = Literal["info", "warning", "error"]

# What every line of this process says besides: its number, where there are several.
LOG_FACTS: Final[dict[str, object]] = {}
BASE_DIR: Final = Path(__file__).resolve().parent.parent


def log(event: str, /, *, level: Level = "info", **facts: object) -> None:
    """Write one line; never an address, a username or payload."""
    now = datetime.fromtimestamp(time.clock_gettime(time.CLOCK_REALTIME), UTC)
    head = {"time": now.isoformat(timespec="milliseconds"), "level": level, "event": event}
    # In one piece: other threads log too.
    sys.stderr.write(json.dumps({**head, "pid": os.getpid(), **LOG_FACTS, **facts}) + "\n")
    sys.stderr.flush()


def fault_facts(error: BaseException | None) -> dict[str, str]:
    """What a line says of an exception: its type and where it was raised."""
    trace = None if error is None else error.__traceback__
    return {"error": type(error).__name__, "at": place(trace)}


def place(trace: TracebackType | None) -> str:
    """The innermost line of ours, as in `relay/runner.py:12`; of a library where none is."""
    # What is compiled says where its source lies from the root.
    frames = [(BASE_DIR / frame.f_code.co_filename, line) for frame, line in walk_tb(trace)]
    ours = [found for found in frames if is_ours(found[0])]
    for name, line in reversed(ours or frames):
        shown = name.relative_to(BASE_DIR) if ours else name.name
        return f"{shown}:{line}"
    return "unknown"


def is_ours(path: Path) -> bool:
    """Whether a file is of this project, and not of an environment below its directory."""
    is_below = path.is_relative_to(BASE_DIR) and "site-packages" not in path.parts
    return is_below and path.is_file()  # "<string>" and the frames of other compilers are none


class JsonLines(logging.Handler):
    """Turns what libraries log into lines of ours, without the values in it."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line for a record: of a fault, or of what a library has to say."""
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            log("fault", level=level, source=record.name, **fault_facts(error))
            return
        # Without its arguments: these are the values.
        template, _, _ = str(record.msg).strip().partition("\n")
        log("library_says", level=level, source=record.name, message=template)


def log_install() -> None:
    """From now on every line that this process writes to standard error is one of these."""
    logging.root.handlers[:] = [JsonLines(logging.WARNING)]
    logging.captureWarnings(True)
    sys.excepthook = lambda _kind, error, _trace: fault_log("main", error)
    threading.excepthook = lambda fault: fault_log("thread", fault.exc_value)


def fault_log(source: str, error: BaseException | None) -> None:
    """An exception that nobody caught."""
    log("fault", level="error", source=source, **fault_facts(error))
