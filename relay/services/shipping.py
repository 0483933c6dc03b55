"""Shipping: the journal's segments into the database, and off the disk.

A segment is removed after the transaction with its records has committed, never before. Dying
between the two ships it again, which changes nothing; so do two shippers at once. When a relay
is gone and its last segment is shipped, the sessions it left open end at the time it was last
heard of, and its directory goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from relay.metering.journal import BootDirectory, boot_directories, segment_lines
from relay.services.ingest import Ingested, records_ingest
from relay.services.store import sessions_close

BATCH_BYTES_MAX: Final = 2 * 1024 * 1024  # about 5000 records


@dataclass
class Shipped:
    """What one run did.

    Attributes:
        segments: shipped and removed.
        records: what became of what was in them.
        sessions_closed: that a relay which is gone had left open.
    """

    segments: int = 0
    records: Ingested = field(default_factory=Ingested)
    sessions_closed: int = 0


def journal_ship(*, directory: Path, now: datetime) -> Shipped:
    """Ship what is in the journal at `directory`.

    Args:
        directory: where the relay writes its journals; it may be missing.
        now: the time; records far from it are quarantined.

    Raises:
        DatabaseError: the database is away; what was not stored stays on disk for the next run.
        PartitionBusyError: likewise.
    """
    shipped = Shipped()
    for boot in boot_directories(directory):
        # Before looking for segments: of a relay that is gone there come no more afterwards.
        with boot.claim() as last_flush_at:
            for segments in _batches(boot.segments()):
                _segments_ship(boot, segments, now, shipped)
            if last_flush_at is not None:
                shipped.sessions_closed += sessions_close(
                    node=boot.node, boot=boot.boot, ended_at=last_flush_at
                )
                boot.remove()
    return shipped


def _segments_ship(
    boot: BootDirectory, segments: Sequence[Path], now: datetime, shipped: Shipped
) -> None:
    lines: list[bytes] = []
    for segment in segments:
        try:
            lines += segment_lines(segment)
        except FileNotFoundError:  # another shipper was faster
            continue
    shipped.records.add(records_ingest(lines=lines, now=now, source=boot.path.name))
    for segment in segments:
        segment.unlink(missing_ok=True)
    shipped.segments += len(segments)


def _batches(segments: Sequence[Path]) -> Iterator[list[Path]]:
    """Whole segments, as many as fit into one batch, and at least one."""
    batch: list[Path] = []
    batch_bytes = 0
    for segment in segments:
        try:
            segment_bytes = segment.stat().st_size
        except FileNotFoundError:
            continue
        if batch and batch_bytes + segment_bytes > BATCH_BYTES_MAX:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(segment)
        batch_bytes += segment_bytes
    if batch:
        yield batch
