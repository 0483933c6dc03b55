"""Reads what a relay has written down."""

from __future__ import annotations

from pathlib import Path

from relay.metering.journal import boot_directories, segment_lines
from relay.metering.records import Record, record_decode


def records_read(home: Path) -> list[Record]:
    """All records of the journal in a data directory, in the order in which they were written."""
    return [
        record_decode(line)
        for boot in boot_directories(home / "journal")
        for segment in boot.segments()
        for line in segment_lines(segment)
    ]
