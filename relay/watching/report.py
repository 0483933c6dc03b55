"""From snapshots to what a scraper and a load balancer read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from relay.watching.metrics import METRICS
from relay.watching.snapshot import Snapshot

KINDS: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


class Report(Collector):
    """The snapshots of all processes as metric families."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterator[Family]:
        """Every metric, with the series of every process."""
        for metric in METRICS:
            labels = (*metric.labels, "process")
            family = KINDS[metric.kind](metric.name, metric.meaning, labels=labels)
            for snapshot in self._snapshots:
                for values, value in snapshot.values.get(metric.name, {}).items():
                    family.add_metric((*values, str(snapshot.process)), value)
            yield family


def metrics_text(snapshots: Sequence[Snapshot], accept: str) -> tuple[str, bytes]:
    """The metrics in a format that the scraper accepts: content type and body."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(Report(snapshots))


def health_text(snapshots: Sequence[Snapshot]) -> tuple[bool, bytes]:
    """Whether every process can serve new calls, and in JSON why not."""
    reasons = [
        {"process": snapshot.process, "reason": reason}
        for snapshot in snapshots
        for reason in snapshot.unwell
    ]
    status = "unavailable" if reasons else "ok"
    return not reasons, json.dumps({"status": status, "reasons": reasons}).encode() + b"\n"
