"""What a relay is told by the database, and who reads it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.control.messages import ControlMessage


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A page of what the database says, the oldest version first.

    Attributes:
        version: what a relay has that has applied it.
        messages: what is newer than what was asked from.
        is_last: whether that is all.
    """

    version: int
    messages: Sequence[ControlMessage]
    is_last: bool


class SnapshotReader(Protocol):
    """Reads the database; called in a thread."""

    def __call__(self, *, since: int) -> Snapshot:
        """What is newer than version `since`; any exception: the database is away."""
