"""What this service's own programs write to stderr: one line for each failure.

A line says what failed and where in the code. It never repeats the message of an exception, as
that may hold an e-mail address or a value of the database, nor a query, nor the variable parts of
an address, which may be keys. Loads no framework: Celery's beat uses it too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final

BASE_DIR: Final = Path(__file__).resolve().parent.parent
DATABASE_ERRORS: Final = {
    "django.db.utils.OperationalError",
    "django.db.utils.InterfaceError",
}
QUEUE_ERRORS: Final = {
    "redis.exceptions.ConnectionError",
    "redis.exceptions.TimeoutError",
    "kombu.exceptions.OperationalError",
}
DATABASE_AWAY: Final = "the database does not answer"
QUEUE_AWAY: Final = "Valkey does not answer"


class OneLine(logging.Formatter):
    """Formats a record as one line without personal data."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; the first one of the message where no exception comes with it."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            lines = record.getMessage().strip().splitlines()
            return f"{record.levelname.lower()}: {lines[0] if lines else ''}"
        return f"{record.levelname.lower()}: {subject(record)}: {failure(error)}"


def subject(record: logging.LogRecord) -> str:
    """What failed: a request, a job, or a part of the program."""
    request = getattr(record, "request", None)
    if request is not None:
        return f"{request.method} {address(request)}"
    job = getattr(record, "data", None)
    if isinstance(job, dict) and "name" in job:
        return f"job {job['name']}"
    return record.name


def address(request: Any) -> str:
    """The request's path, with names instead of what varies in it."""
    match = request.resolver_match
    if match is None:  # it failed before anything looked at the address
        return "(any address)"
    path: str = request.path_info
    for name, value in match.kwargs.items():
        if value:
            path = path.replace(str(value), f"<{name}>")
    return path.encode("unicode_escape").decode()


def failure(error: BaseException) -> str:
    """The exception's type and where it was raised; what is away, where that is the reason."""
    away = service_away(error)
    if away:
        return f"{away} ({type(error).__name__})"
    return f"{type(error).__name__} at {place(error.__traceback__)}"


def service_away(error: BaseException) -> str:
    """What does not answer, as a sentence; empty where the error is of another kind."""
    names = {f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__}
    if names & DATABASE_ERRORS:
        return DATABASE_AWAY
    return QUEUE_AWAY if names & QUEUE_ERRORS else ""


def place(traceback: TracebackType | None) -> str:
    """Our innermost line, then the innermost of all where that is in a library."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(traceback)]
    if not frames:
        return "an unknown place"
    ours = [frame for frame in frames if is_ours(frame[0])]
    places = [f"{short(name)}:{line}" for name, line in (ours or frames)[-1:]]
    if ours and ours[-1] != frames[-1]:
        places.append(f"{short(frames[-1][0])}:{frames[-1][1]}")
    return ", in ".join(places)


def is_ours(name: str) -> bool:
    """Whether a file is of this project, and not of an environment below its directory."""
    path = Path(name)
    return path.is_relative_to(BASE_DIR) and "site-packages" not in path.parts


def short(name: str) -> str:
    """The file's name below the project, or below the directory of libraries."""
    if is_ours(name):
        return str(Path(name).relative_to(BASE_DIR))
    return name.rpartition("site-packages/")[2]


LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"one_line": {"()": OneLine}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "one_line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": [], "level": "ERROR"},
        # Whoever asks by a wrong name is told so: nothing of ours has failed.
        "django.security.DisallowedHost": {"handlers": [], "level": "CRITICAL"},
    },
}
