"""Ingest: each record once, whatever is repeated, reordered, split, merged or wrong."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Project
from relay.metering.records import MoveRecord, SessionRecord, UsageRecord, record_encode
from relay.models import (
    AuthenticationEvent,
    PeerFlow,
    QuarantinedRecord,
    QuarantineReason,
    Session,
    SessionMove,
    UsageHour,
)
from relay.models import (
    UsageRecord as UsageRow,
)
from relay.services.ingest import Ingested, records_ingest
from relay.services.usage import usage_roll_up
from tests.relay.metering.conftest import rolled_back
from tests.relay.metering.examples import NOW, START, Gathered, at, call

pytestmark = pytest.mark.django_db

TABLES = (Session, PeerFlow, SessionMove, AuthenticationEvent, UsageRow, UsageHour)
EXAMPLES = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


MOVES = [("203.0.113.9", 6000), ("2001:db8::9", 6001)]


def ingest(lines: list[bytes]) -> Ingested:
    return records_ingest(lines=lines, now=NOW, source="node-1-b00t")


def books() -> list[list[dict[str, Any]]]:
    """Everything the tables of usage say, in a fixed order."""
    usage_roll_up()
    return [
        sorted(
            (
                {name: value for name, value in row.items() if name not in ("id", "is_rated")}
                for row in model._default_manager.values()
            ),
            key=str,
        )
        for model in TABLES
    ]


def two_calls(project: Project, other_project: Project) -> Gathered:
    return Gathered(
        call(project.public_id, allocation=1)
        + call(other_project.public_id, allocation=2, intervals=2, sent=77, moves=MOVES)
        + call(project.public_id, allocation=3, starts_at=START + 3590, end=False)
    )


@pytest.mark.claim("S-65")
def test_call_becomes_a_session_with_its_peer_and_its_bytes(project: Project) -> None:
    result = ingest(call(project.public_id, intervals=3, sent=1000).lines)
    assert (result.stored, result.repeated, result.quarantined) == (6, 0, {})
    session = Session.objects.get()
    assert session.project == project
    assert (session.client_address, session.client_port) == ("192.0.2.1", 5000)
    assert session.transport == "udp"
    assert session.started_at == at(START)
    assert session.ended_at == at(START + 16)
    assert session.client_received_bytes == 3 * 504
    assert session.client_sent_bytes == 3 * 1004
    assert session.peer_received_bytes == 3 * 1000
    assert session.peer_sent_bytes == 3 * 500
    peer = PeerFlow.objects.get()
    assert (peer.peer_address, peer.peer_port) == ("198.51.100.7", 7000)
    event = AuthenticationEvent.objects.get()
    assert (event.project, event.outcome) == (project, "accepted")
    assert UsageRow.objects.aggregate(sent=Sum("client_sent_bytes")) == {"sent": 3 * 1004}


@pytest.mark.claim("S-11")
def test_every_address_that_a_client_moves_to_is_logged_beside_its_session(
    project: Project,
) -> None:
    records = call(project.public_id, moves=MOVES)
    assert ingest(records.lines).stored == 8
    session = Session.objects.get()
    assert (session.client_address, session.client_port) == ("192.0.2.1", 5000)
    assert list(
        SessionMove.objects.order_by("number").values_list(
            *("node", "boot", "allocation", "number", "session_started_at", "moved_at"),
            *("client_address", "client_port", "transport"),
        )
    ) == [
        ("node-1", "boot1", 1, number, at(START), at(START + number), *address, "udp")
        for number, address in enumerate(MOVES, start=1)
    ]
    assert ingest(records.lines).repeated == 8


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"client_address": "203.0.113.10"}, QuarantineReason.CONTRADICTION),
        ({"client_port": 6002}, QuarantineReason.CONTRADICTION),
        ({"moved_at": START + 1.5}, QuarantineReason.CONTRADICTION),
        ({"session_started_at": START - 1}, QuarantineReason.CONTRADICTION),
        ({"transport": "tls"}, QuarantineReason.CONTRADICTION),
        ({"number": 9, "project": "prj_zzzzzzzzzzzz"}, QuarantineReason.UNKNOWN_PROJECT),
        ({"number": 9, "moved_at": START + 9999}, QuarantineReason.FUTURE),
        ({"number": 9, "session_started_at": START - 4e7}, QuarantineReason.PAST),
    ],
)
def test_move_that_cannot_be_is_quarantined_without_its_address(
    project: Project, changes: dict[str, Any], reason: QuarantineReason, *, together: bool
) -> None:
    records = call(project.public_id, moves=MOVES[:1])
    move = next(record for record in records if isinstance(record, MoveRecord))
    forged = record_encode(move._replace(**changes)).rstrip()
    if together:
        result = ingest([*records.lines, forged])
    else:
        ingest(records.lines)
        result = ingest([forged])
    assert result.quarantined == {reason: 1}
    assert SessionMove.objects.get().client_address == "203.0.113.9"
    kept = QuarantinedRecord.objects.get()
    assert kept.reason == reason
    assert "203.0.113" not in str(kept.payload)


def test_session_stays_open_until_its_last_record(project: Project) -> None:
    records = call(project.public_id)
    ingest(records.lines[:-1])
    assert Session.objects.get().ended_at is None
    ingest(records.lines[-1:])
    assert Session.objects.get().ended_at is not None


@EXAMPLES
@given(data=st.data())
def test_replaying_any_part_any_number_of_times_changes_nothing(
    project: Project, other_project: Project, data: st.DataObject
) -> None:
    lines = two_calls(project, other_project).lines
    with rolled_back():
        ingest(lines)
        expected = books()
        for _ in range(data.draw(st.integers(1, 3))):
            result = ingest(data.draw(st.lists(st.sampled_from(lines), min_size=1)))
            assert (result.stored, result.quarantined) == (0, {})
        assert books() == expected


@EXAMPLES
@given(data=st.data())
def test_any_order_and_any_cut_gives_the_same_books(
    project: Project, other_project: Project, data: st.DataObject
) -> None:
    lines = two_calls(project, other_project).lines
    with rolled_back():
        ingest(lines)
        expected = books()
    with rolled_back():
        shuffled = data.draw(st.permutations(lines))
        cuts = data.draw(st.lists(st.integers(0, len(lines)), max_size=4).map(sorted))
        for start, end in zip([0, *cuts], [*cuts, len(lines)], strict=True):
            ingest(shuffled[start:end])
            if data.draw(st.booleans()):
                usage_roll_up()
        assert books() == expected


def test_session_that_comes_after_its_usage_has_its_bytes(project: Project) -> None:
    records = call(project.public_id)
    for line in reversed(records.lines):
        ingest([line])
    session = Session.objects.get()
    assert session.client_sent_bytes == 3 * 1004
    assert session.ended_at == at(START + 16)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {"client_sent": 1003},
        {"project": "other"},
        {"interval_ended_at": START + 5.5},
        {"interval_started_at": START + 0.5},
        {"session_started_at": START - 1},
        {"ended": True},
    ],
)
def test_same_key_with_other_content_is_quarantined_and_the_first_stays(
    project: Project, other_project: Project, changes: dict[str, Any], *, together: bool
) -> None:
    records = call(project.public_id, intervals=1)
    usage = next(record for record in records if isinstance(record, UsageRecord))
    if "project" in changes:
        changes = {"project": other_project.public_id}
    forged = record_encode(usage._replace(**changes)).rstrip()
    if together:
        result = ingest([*records.lines, forged])
    else:
        ingest(records.lines)
        result = ingest([forged])
    assert result.quarantined == {QuarantineReason.CONTRADICTION: 1}
    assert UsageRow.objects.aggregate(sent=Sum("client_sent_bytes")) == {"sent": 1004}
    assert Session.objects.get().client_sent_bytes == 1004
    assert QuarantinedRecord.objects.get().reason == QuarantineReason.CONTRADICTION


def test_contradicting_session_and_event_are_quarantined(project: Project) -> None:
    records = call(project.public_id)
    ingest(records.lines)
    session = records[0]
    assert isinstance(session, SessionRecord)
    result = ingest([record_encode(session.event._replace(outcome="expired")).rstrip()])
    assert result.quarantined == {QuarantineReason.CONTRADICTION: 1}
    # A session says what its event says: here another client for both.
    result = ingest([record_encode(session._replace(client_port=1)).rstrip()])
    assert result.quarantined == {QuarantineReason.CONTRADICTION: 2}
    assert Session.objects.get().client_port == 5000
    assert AuthenticationEvent.objects.get().outcome == "accepted"


@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (timedelta(minutes=5, seconds=1), QuarantineReason.FUTURE),
        (-timedelta(days=367), QuarantineReason.PAST),
    ],
)
def test_records_far_from_now_are_quarantined_and_not_billed(
    project: Project, offset: timedelta, reason: QuarantineReason
) -> None:
    starts_at = (NOW + offset).timestamp()
    result = ingest(call(project.public_id, starts_at=starts_at).lines)
    assert set(result.quarantined) == {reason}
    assert result.stored == 0
    assert usage_roll_up() == 0


def test_record_five_minutes_ahead_is_taken(project: Project) -> None:
    assert ingest(call(project.public_id, starts_at=NOW.timestamp() + 280).lines).stored == 6


def test_late_record_is_booked_when_it_happened(project: Project) -> None:
    starts_at = (NOW - timedelta(days=40)).timestamp()
    assert ingest(call(project.public_id, starts_at=starts_at).lines).stored == 6
    usage_roll_up()
    assert UsageHour.objects.get().hour == (NOW - timedelta(days=40)).replace(minute=0)


def test_unknown_project_is_quarantined_but_its_knock_is_logged() -> None:
    result = ingest(call("prj_nobodynobody").lines)
    assert result.quarantined == {QuarantineReason.UNKNOWN_PROJECT: 5}
    assert AuthenticationEvent.objects.get().project is None
    assert not Session.objects.exists()


def test_quarantine_is_told_in_words_with_where_to_read_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ingest([*call("prj_nobodynobody").lines, b"{}"])
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "5 (names a project that does not exist)" in line
    assert "1 (not a record)" in line
    _, _, section = line.partition("see '")
    heading, _, place = section.partition("' in ")
    document = (Path(__file__).resolve().parents[3] / place).read_text()
    assert f"\n## {heading}\n" in document
    assert all(f"{reason.label}" in document for reason in QuarantineReason)


def test_quarantine_holds_no_address_and_one_row_per_record(project: Project) -> None:
    lines = [*call("prj_nobodynobody").lines, b'{"client_address":"192.0.2.1"', b"\xff\x00"]
    for _ in range(3):
        ingest(lines)
    rows = QuarantinedRecord.objects.all()
    assert len(rows) == 5 + 2
    stored = json.dumps([[row.node, row.boot, row.payload] for row in rows])
    assert "192.0.2" not in stored
    assert "198.51.100" not in stored
    assert {row.reason for row in rows} == {
        QuarantineReason.UNKNOWN_PROJECT,
        QuarantineReason.MALFORMED,
    }


def test_nonsense_between_records_stops_nobody(project: Project) -> None:
    lines = call(project.public_id).lines
    result = ingest([b"", lines[0], b"{}", *lines[1:], b"\x00"])
    assert result.stored == 6
    assert result.quarantined == {QuarantineReason.MALFORMED: 3}


def test_tenant_is_not_changed_by_the_records_of_another(
    project: Project, other_project: Project
) -> None:
    ingest(call(project.public_id, allocation=1).lines)
    before = Session.objects.filter(project=project).values().get()
    ingest(call(other_project.public_id, allocation=2, sent=9).lines)
    assert Session.objects.filter(project=project).values().get() == before
