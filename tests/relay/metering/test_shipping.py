"""Shipping: segments go when their records are stored, sessions end that nobody ended."""

from __future__ import annotations

import json
import os
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from django.db import DatabaseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Project
from relay.metering.journal import Journal
from relay.metering.records import record_decode
from relay.models import Session, UsageHour
from relay.services import shipping
from relay.services.shipping import journal_ship
from relay.services.usage import usage_roll_up
from tests.relay.metering.conftest import rolled_back
from tests.relay.metering.examples import NOW, START, Gathered, at, call, hours, segments


def journal_write(directory: Path, boot: str, *flushes: Gathered) -> Journal:
    """The journal of a relay that still lives: one segment per flush."""
    journal = Journal(directory=directory, node="node-1", boot=boot)
    for records in flushes:
        for record in records:
            journal.append(record)
        assert journal.flush()
    return journal


@pytest.mark.django_db
def test_segments_go_when_their_records_are_stored(project: Project, tmp_path: Path) -> None:
    journal = journal_write(tmp_path, "b1", call(project.public_id, boot="b1"))
    shipped = journal_ship(directory=tmp_path, now=NOW)
    assert (shipped.segments, shipped.records.stored) == (1, 6)
    assert segments(tmp_path) == []
    assert journal.directory.exists()
    again = journal_ship(directory=tmp_path, now=NOW)
    assert (again.segments, again.records.stored) == (0, 0)


@pytest.mark.django_db
def test_missing_journal_is_nothing_to_ship(tmp_path: Path) -> None:
    assert journal_ship(directory=tmp_path / "none", now=NOW).segments == 0


@pytest.mark.django_db
def test_segments_stay_when_the_database_fails(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal_write(tmp_path, "b1", call(project.public_id, boot="b1"))

    def fail(**_: object) -> None:
        raise DatabaseError

    with monkeypatch.context() as patched:
        patched.setattr(shipping, "records_ingest", fail)
        with pytest.raises(DatabaseError):
            journal_ship(directory=tmp_path, now=NOW)
    assert len(segments(tmp_path)) == 1
    assert journal_ship(directory=tmp_path, now=NOW).records.stored == 6


@pytest.mark.django_db
def test_session_of_a_living_relay_stays_open(project: Project, tmp_path: Path) -> None:
    journal_write(tmp_path, "b1", call(project.public_id, boot="b1", end=False))
    assert journal_ship(directory=tmp_path, now=NOW).sessions_closed == 0
    assert Session.objects.get().ended_at is None


@pytest.mark.django_db
def test_session_of_a_dead_relay_ends_when_it_was_last_heard_of(
    project: Project, tmp_path: Path
) -> None:
    records = call(project.public_id, boot="b1", end=False)
    journal = journal_write(tmp_path, "b1", records)
    os.utime(journal.directory / "live", (START + 300, START + 300))
    os.close(journal._live)  # what kill -9 does
    assert journal_ship(directory=tmp_path, now=NOW).sessions_closed == 1
    assert Session.objects.get().ended_at == at(START + 300)
    assert not journal.directory.exists()


@pytest.mark.django_db
def test_last_record_of_a_session_outdoes_the_guess(project: Project, tmp_path: Path) -> None:
    records = call(project.public_id, boot="b1")
    journal = journal_write(tmp_path, "b1", Gathered(records[:-1]))
    os.close(journal._live)
    journal_ship(directory=tmp_path, now=NOW)
    late = tmp_path / "node-1-b1"
    late.mkdir()
    (late / "live").touch()
    (late / "000002.jsonl").write_bytes(records.lines[-1] + b"\n")
    journal_ship(directory=tmp_path, now=NOW)
    assert Session.objects.get().ended_at == at(START + 16)


@pytest.mark.django_db
def test_other_boots_sessions_are_not_closed(project: Project, tmp_path: Path) -> None:
    dead = journal_write(tmp_path, "b1", call(project.public_id, boot="b1", end=False))
    journal_write(tmp_path, "b2", call(project.public_id, boot="b2", end=False))
    os.close(dead._live)
    assert journal_ship(directory=tmp_path, now=NOW).sessions_closed == 1
    assert Session.objects.filter(ended_at=None).get().boot == "b2"


@pytest.mark.django_db
def test_segment_cut_short_gives_its_complete_lines(project: Project, tmp_path: Path) -> None:
    journal_write(tmp_path, "b1", call(project.public_id, boot="b1"))
    [segment] = segments(tmp_path)
    segment.write_bytes(segment.read_bytes()[:-20])
    assert journal_ship(directory=tmp_path, now=NOW).records.stored == 5


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.django_db
def test_splitting_or_merging_segments_gives_the_same_hours(
    project: Project,
    other_project: Project,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    records = Gathered(
        call(project.public_id, boot="b1", sent=11)
        + call(other_project.public_id, boot="b2", intervals=5, starts_at=START + 1780)
    )
    cuts = sorted({0, len(records), *data.draw(st.lists(st.integers(0, len(records))))})
    directory = tmp_path_factory.mktemp("journal")
    parts = [Gathered(records[start:end]) for start, end in pairwise(cuts)]
    with rolled_back(), closing(journal_write(directory, "b9", *parts)):
        shipped = journal_ship(directory=directory, now=NOW)
        assert shipped.segments == len(parts)
        usage_roll_up()
        assert hours() == {
            project.public_id: 3 * 15,
            other_project.public_id: 5 * 1004,
        }
        assert UsageHour.objects.count() == 3


def test_examples_are_what_a_relay_writes() -> None:
    for line in call("prj_abcdefghijkl").lines:
        assert json.loads(line)
        record_decode(line)
