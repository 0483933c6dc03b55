"""The journal: usage records on disk, where neither kill -9 nor an absent database loses them.

    <directory>/<node>-<boot>/live          locked while the relay lives, touched at each flush
                              000001.jsonl  one flush: complete when it is there, never changed
                              000002.jsonl
                              000003.part   being written; after a crash, a flush that never was

A flush writes everything gathered since the last one to a `.part`, has the disk confirm it, and
only then gives the segment its name. So a segment is there whole or not at all, a failed write is
undone by removing the `.part`, and who ships a segment removes it when its database has committed.
Nobody appends to a segment, so there is nothing to keep count of between the two sides. The lock
on `live` goes with the process, however that ends: who can take it knows that no segment follows.

The loop calls `append`; `flush` blocks on the disk and belongs into a thread. What the disk won't
take stays in memory up to a bound and is tried again with the next flush.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from relay.log import log
from relay.metering.records import AuthenticationRecord, Record, record_encode

SEGMENT_BYTES_MAX: Final = 1024 * 1024
PENDING_BYTES_MAX: Final = 64 * 1024 * 1024
LIVE_FILE: Final = "live"

_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BOOT: Final = re.compile(r"[A-Za-z0-9]{1,64}")
_SEGMENT: Final = re.compile(r"[0-9]{6,}\.jsonl")

logger = logging.getLogger(__name__)


class Journal:
    """One relay's journal, from its start to its end (a boot).

    Attributes:
        records_dropped: records that found no room in memory while the disk was failing.
        error: why the last flush failed; None where it did not.
        synced_at: when everything was last found to be on disk; of `time.monotonic`.
    """

    def __init__(
        self,
        *,
        directory: Path,
        node: str,
        boot: str,
        pending_bytes_max: int = PENDING_BYTES_MAX,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
    ) -> None:
        """Make the boot's directory and lock it.

        Args:
            directory: where the journals of all boots are; made where there is none.
            node: the relay's name: letters, digits, dots, underscores and hyphens.
            boot: names this start of the relay: letters and digits, never used before.
            pending_bytes_max: how much may wait in memory while the disk fails.
            segment_bytes_max: a flush of more than this becomes several segments.

        Raises:
            OSError: the directory can't be written, or the boot's name was used before.
            ValueError: node or boot have other characters.
        """
        if not (_NODE.fullmatch(node) and _BOOT.fullmatch(boot)):
            raise ValueError("a node's name is of letters, digits and ._-, a boot's of the former")
        self.records_dropped = 0
        self.error: OSError | None = None
        self.synced_at = time.monotonic()
        self._pending_bytes_max = pending_bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._writing = 0
        self._pending_lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._segment_number = 0
        self._closed = False
        self._directory, self._live = _boot_directory_make(directory, f"{node}-{boot}")

    @property
    def directory(self) -> Path:
        """Where this boot's segments are."""
        return self._directory

    @property
    def records_waiting(self) -> int:
        """Records that are not on disk yet, those that are just being written included."""
        with self._pending_lock:
            return len(self._pending) + self._writing

    def append(self, record: Record) -> None:
        """Gather one record for the next flush; never waits for the disk, never raises."""
        line = record_encode(record)
        bound = self._pending_bytes_max
        if isinstance(record, AuthenticationRecord):
            bound //= 2  # failed sign-ins must not push usage out
        with self._pending_lock:
            if self._pending_bytes + len(line) <= bound:
                self._pending.append(line)
                self._pending_bytes += len(line)
            else:
                self.records_dropped += 1

    def flush(self) -> bool:
        """Bring what was gathered to disk; call it in a thread, every few seconds.

        Returns:
            Whether everything is on disk. If not, `error` says why, the log says it once, and the
            records wait in memory for the next call.
        """
        with self._flush_lock:
            if self._closed:  # one that was asked for before the end comes after it
                return True
            with self._pending_lock:
                lines, self._pending = self._pending, []
                self._writing = len(lines)
            written = 0
            try:
                os.utime(self._live)
                for chunk in _chunks(lines, self._segment_bytes_max):
                    self._segment_write(chunk)
                    written += len(chunk)
            except OSError as error:
                self._report(error)
            else:
                self._report(None)
                self.synced_at = time.monotonic()
            with self._pending_lock:
                self._writing = 0
                self._pending[:0] = lines[written:]
                self._pending_bytes -= sum(map(len, lines[:written]))
            return written == len(lines)

    def close(self) -> bool:
        """Flush a last time and say that no segment follows; whether everything is on disk."""
        complete = self.flush()
        with self._flush_lock:
            self._closed = True
            os.close(self._live)
        return complete

    def _segment_write(self, lines: list[bytes]) -> None:
        part = self._directory / f"{self._segment_number + 1:06}.part"
        try:
            # In one piece: the event loop, whose lock each write would take, waits once.
            with open(part, "wb", buffering=0, opener=_private_opener) as segment:
                _write_all(segment, b"".join(lines))
                os.fsync(segment.fileno())
            part.rename(part.with_suffix(".jsonl"))
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        # The shipper may have it from here on. If the next line fails, the same records are written
        # again under the next number, which repeats nothing: every record has its key.
        self._segment_number += 1
        _directory_sync(self._directory)

    def _report(self, error: OSError | None) -> None:
        if error is not None and self.error is None:
            log("journal_failing", level="error", reason=error.strerror or type(error).__name__)
        elif error is None and self.error is not None:
            log("journal_recovered", level="warning", records_lost=self.records_dropped)
        self.error = error


class BootDirectory:
    """One boot's directory, as the shipper sees it.

    Attributes:
        path: the directory.
        node, boot: whose journal it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.node, _, self.boot = path.name.rpartition("-")

    def segments(self) -> list[Path]:
        """Its complete segments, oldest first."""
        try:
            names = [name for name in os.listdir(self.path) if _SEGMENT.fullmatch(name)]
        except FileNotFoundError:  # another shipper removed it
            return []
        return [self.path / name for name in sorted(names, key=lambda name: (len(name), name))]

    @contextlib.contextmanager
    def claim(self) -> Iterator[float | None]:
        """Hold the lock of a relay that is gone.

        Yields:
            When it was last heard of, unix seconds. None while it lives, or where another shipper
            has seen to it.
        """
        try:
            live = os.open(self.path / LIVE_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # another shipper is removing it
            yield None
            return
        try:
            gone = _lock(live)
            status = os.fstat(live)
            # Without a link, another shipper removed it after we opened it and before we locked it.
            yield status.st_mtime if gone and status.st_nlink else None
        finally:
            os.close(live)

    def remove(self) -> None:
        """Remove the directory of a relay that is gone, and an unfinished segment with it."""
        shutil.rmtree(self.path, ignore_errors=True)


def boot_directories(directory: Path) -> list[BootDirectory]:
    """The boots whose journals are in `directory`; none where there is no such directory."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    paths = (directory / name for name in sorted(names) if not name.startswith("."))
    return [BootDirectory(path) for path in paths if path.is_dir()]


def segment_lines(segment: Path) -> list[bytes]:
    """The complete lines of a segment, without their line feeds.

    A last line without one was cut off by a failing machine: it is left out.
    """
    *lines, torn = segment.read_bytes().split(b"\n")
    if torn:
        logger.warning("the last line of a journal segment is cut short and was left out")
    return lines


def _boot_directory_make(directory: Path, name: str) -> tuple[Path, int]:
    """Make `directory/name` with a locked `live` in it, at once for whoever looks."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    unnamed = directory / f".{name}"
    unnamed.mkdir(mode=0o700)
    live = os.open(unnamed / LIVE_FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(live):
            raise OSError(f"{unnamed / LIVE_FILE} can't be locked")
        unnamed.rename(directory / name)
        _directory_sync(directory)
    except OSError:
        os.close(live)
        raise
    return directory / name, live


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _chunks(lines: list[bytes], bytes_max: int) -> Iterator[list[bytes]]:
    start = size = 0
    for index, line in enumerate(lines):
        if size and size + len(line) > bytes_max:
            yield lines[start:index]
            start, size = index, 0
        size += len(line)
    if size:
        yield lines[start:]


def _write_all(segment: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[segment.write(rest) :]


def _directory_sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
