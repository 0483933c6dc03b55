"""What a relay process says of itself at one moment; siblings send it to each other as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from relay.watching.metrics import Values, ours


@dataclass(frozen=True)
class RelayState:
    """What else decides whether a relay takes new allocations.

    Attributes:
        draining: it takes none, and ends once the last one is gone.
        cut_off: it has not heard of its control channel for too long, and refuses them.
    """

    draining: bool = False
    cut_off: bool = False


@dataclass
class Snapshot:
    """One process at one moment.

    Attributes:
        process: its number.
        values: of every series, by metric and labels.
        unwell: why it cannot serve new calls; empty where it can.
        listens: whether it is the one that answers scrapes.
    """

    process: int
    values: Values = field(default_factory=dict)
    unwell: list[str] = field(default_factory=list)
    listens: bool = False

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set one series of a metric of our own."""
        self.values.setdefault(ours(name), {})[labels] = value

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add to one series."""
        series = self.values.setdefault(ours(name), {})
        series[labels] = series.get(labels, 0.0) + value

    def encode(self) -> bytes:
        """As JSON."""
        values = {
            name: [[*labels, value] for labels, value in series.items()]
            for name, series in self.values.items()
        }
        described = {
            "process": self.process,
            "values": values,
            "unwell": self.unwell,
            "listens": self.listens,
        }
        return json.dumps(described).encode()


def snapshot_decode(encoded: bytes) -> Snapshot:
    """What a sibling, which runs the same code, has encoded."""
    described = json.loads(encoded)
    values = {
        name: {tuple(labels): value for *labels, value in rows}
        for name, rows in described["values"].items()
    }
    return Snapshot(described["process"], values, described["unwell"], described["listens"])


def snapshot_absent(process: int, reason: str) -> Snapshot:
    """Of a process that says nothing."""
    absent = Snapshot(process, unwell=[reason])
    absent.set("up", 0)
    return absent
