"""What retention does with refused records and with a journal that nobody shipped."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from accounts.models import Project
from privacy.retention.engine import holders
from privacy.retention.partitions import partition_list
from relay import personal_data
from relay.metering.journal import BootDirectory, Journal, segment_lines
from relay.models import QuarantinedRecord
from relay.personal_data import journal_due
from relay.services.ingest import records_ingest
from relay.services.partitions import PARTITIONED_TABLES, partitions_create_ahead
from relay.services.shipping import journal_ship
from tests.relay.metering.examples import NOW, call, segments

pytestmark = pytest.mark.django_db

DAYS_30 = timedelta(days=30)
MOMENT = timedelta(microseconds=1)


def test_quarantined_records_go_after_30_days() -> None:
    records_ingest(lines=[b"nonsense"], now=NOW, source="node-1-b1")
    holders.purge(now=NOW + DAYS_30)
    assert QuarantinedRecord.objects.exists()
    holders.purge(now=NOW + DAYS_30 + MOMENT)
    assert not QuarantinedRecord.objects.exists()


def test_segments_that_nobody_shipped_go_after_30_days(
    settings: Settings, tmp_path: Path, project: Project
) -> None:
    settings.TURN_JOURNAL_DIRECTORY = tmp_path
    journal = Journal(directory=tmp_path, node="node-1", boot="b1")
    for age in (DAYS_30 + MOMENT, DAYS_30 - timedelta(hours=1)):
        for record in call(project.public_id, boot="b1"):
            journal.append(record)
        journal.flush()
        newest = BootDirectory(journal.directory).segments()[-1]
        written_at = (NOW - age).timestamp()
        os.utime(newest, (written_at, written_at))
    [planned] = [outcome for outcome in holders.plan(now=NOW) if outcome.holder == "relay.journal"]
    assert planned.part.rows == 5
    assert len(segments(tmp_path)) == 2
    holders.purge(now=NOW)
    assert [path.name for path in segments(tmp_path)] == ["000002.jsonl"]
    assert journal_ship(directory=tmp_path, now=NOW).records.stored == 6


@pytest.mark.parametrize("moment", ["listed", "looked at"])
def test_segment_that_is_shipped_meanwhile_is_not_due(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    settings.TURN_JOURNAL_DIRECTORY = tmp_path
    (tmp_path / "node-1-b1").mkdir()
    segment = tmp_path / "node-1-b1" / "000001.jsonl"
    segment.write_bytes(b"{}\n")
    os.utime(segment, (0, 0))

    def shipped(path: Path) -> list[bytes]:
        path.unlink()
        return segment_lines(path)

    if moment == "listed":
        segment.unlink()
        monkeypatch.setattr(BootDirectory, "segments", lambda boot: [segment])
    else:
        monkeypatch.setattr(personal_data, "segment_lines", shipped)
    assert journal_due(NOW) == []


def test_partitions_of_the_coming_days_are_there_before_them() -> None:
    for _ in range(2):
        partitions_create_ahead(now=NOW)
    for table in PARTITIONED_TABLES:
        days = {partition.day for partition in partition_list(table=table)}
        assert days >= {(NOW + timedelta(days=offset)).date() for offset in range(4)}
