"""A relay's records without the relay: the real meter, fed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from relay.metering.meter import Meter
from relay.metering.records import Record, record_encode
from relay.models import UsageHour

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)
START = NOW.timestamp() - 3600


@dataclass
class Allocation:
    """The counters of an allocation, moved by hand."""

    id: int = 1
    owner: str = "prj_abcdefghijkl"
    client: tuple[str, int] = ("192.0.2.1", 5000)
    transport: str = "udp"
    client_received_bytes: int = 0
    client_sent_bytes: int = 0
    peer_received_bytes: int = 0
    peer_sent_bytes: int = 0
    peers_unreported: list[tuple[str, int]] = field(default_factory=list)

    def relay(self, received: int, sent: int) -> None:
        """Data both ways, through channels: 4 bytes of framing each."""
        self.client_received_bytes += received + 4
        self.peer_sent_bytes += received
        self.peer_received_bytes += sent
        self.client_sent_bytes += sent + 4


class Gathered(list[Record]):
    """A journal in memory."""

    @property
    def lines(self) -> list[bytes]:
        """What a segment would hold, without line feeds."""
        return [record_encode(record).rstrip(b"\n") for record in self]


def call(
    project: str,
    *,
    allocation: int = 1,
    boot: str = "",
    starts_at: float = START,
    intervals: int = 3,
    sent: int = 1000,
    end: bool = True,
    moves: Sequence[tuple[str, int]] = (),
) -> Gathered:
    """The records of one allocation: `sent` + 4 bytes to the client in each interval.

    Each is a relay of its own unless `boot` says otherwise. The client moves to these addresses a
    second after each other.
    """
    journal = Gathered()
    meter = Meter(journal, node="node-1", boot=boot or f"boot{allocation}")
    made = Allocation(id=allocation, owner=project)
    meter.session_started(made, starts_at)
    made.peers_unreported.append(("198.51.100.7", 7000))
    for number, address in enumerate(moves, start=1):
        made.client = address
        meter.session_moved(made, starts_at + number)
    for interval in range(1, intervals + 1):
        made.relay(received=sent // 2, sent=sent)
        meter.flush(starts_at + 5 * interval)
    if end:
        meter.session_ended(made, starts_at + 5 * intervals + 1)
    return journal


def at(seconds: float) -> datetime:
    """Unix seconds as a time."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def segments(directory: Path) -> list[Path]:
    """The segments of all boots below `directory`."""
    return sorted(directory.rglob("*.jsonl"))


def hours() -> dict[str, int]:
    """Bytes sent to clients by project, over all hours."""
    sums: dict[str, int] = {}
    for name, sent in UsageHour.objects.values_list("project__public_id", "client_sent_bytes"):
        sums[name] = sums.get(name, 0) + sent
    return sums
