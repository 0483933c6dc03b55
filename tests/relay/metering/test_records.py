"""Records: what is written is read back, and nothing else is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.metering.records import (
    AuthenticationRecord,
    MoveRecord,
    Record,
    RecordError,
    SessionRecord,
    UsageRecord,
    record_decode,
    record_encode,
)

SESSION = SessionRecord(
    "node-1", "b00t", 7, 1_700_000_000.25, "prj_abcdefghijkl", "192.0.2.1", 5000, "udp", 3
)
USAGE = UsageRecord(
    node="node-1",
    boot="b00t",
    allocation=7,
    sequence=2,
    project="prj_abcdefghijkl",
    session_started_at=1_700_000_000.25,
    interval_started_at=1_700_000_005.0,
    interval_ended_at=1_700_000_010.0,
    client_received=1,
    client_sent=2,
    peer_received=3,
    peer_sent=4,
    client_received_total=10,
    client_sent_total=20,
    peer_received_total=30,
    peer_sent_total=40,
    peers=(("192.0.2.2", 6000), ("2001:db8::2", 6001)),
    ended=False,
)
AUTHENTICATION = AuthenticationRecord(
    "node-1", "b00t", 3, 1_700_000_000.000001, None, "2001:db8::1", 5000, "tls", "wrong_password"
)
MOVE = MoveRecord(
    node="node-1",
    boot="b00t",
    allocation=7,
    number=1,
    project="prj_abcdefghijkl",
    session_started_at=1_700_000_000.25,
    moved_at=1_700_000_007.5,
    client_address="2001:db8::9",
    client_port=6000,
    transport="tls",
)
RECORDS = [SESSION, USAGE, MOVE, AUTHENTICATION]


def changed(record: Record, **changes: object) -> bytes:
    return json.dumps({**json.loads(record_encode(record)), **changes}).encode()


@pytest.mark.parametrize("record", RECORDS)
def test_record_reads_back_as_written(record: Record) -> None:
    line = record_encode(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert record_decode(line) == record


@given(st.binary())
def test_bytes_that_are_no_record_raise_the_one_error(line: bytes) -> None:
    with pytest.raises(RecordError):
        record_decode(line)


@given(
    field=st.sampled_from(sorted(USAGE._fields)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: object) -> None:
    try:
        record = record_decode(changed(USAGE, **{field: value}))
    except RecordError as error:
        assert field.removesuffix("_total") in str(error) or "interval" in str(error)
    else:
        assert record_decode(record_encode(record)) == record


@pytest.mark.parametrize(
    "changes",
    [
        {"moved_at": 1_700_000_000_000_000},
        {"number": 0},
        {"client_address": "192.0.2.1:80"},
        {"client_port": 65536},
        {"transport": "sctp"},
        {"peers": []},
    ],
)
def test_move_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        record_decode(changed(MOVE, **changes))


@given(st.text())
def test_names_cannot_break_out_of_their_line(name: str) -> None:
    line = record_encode(SESSION._replace(project=name))
    assert line.count(b"\n") == 1
    assert json.loads(line)["project"] == name


@pytest.mark.parametrize("record", RECORDS)
def test_field_missing_or_too_many_is_named(record: Record) -> None:
    fields = json.loads(record_encode(record))
    without = {name: value for name, value in fields.items() if name != "boot"}
    with pytest.raises(RecordError, match="boot is missing"):
        record_decode(json.dumps(without).encode())
    with pytest.raises(RecordError, match="a field too many"):
        record_decode(json.dumps({**fields, "payload": "x"}).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_sent", -1),
        ("client_sent", 1.0),
        ("client_sent", True),
        ("client_sent_total", 2**53),
        ("sequence", 0),
        ("interval_ended_at", float("nan")),
        ("interval_ended_at", 1_700_000_010.0),
        ("interval_ended_at", 10**400),
        ("node", "a b"),
        ("project", "prj_\u0000"),
        ("peers", [["192.0.2.2", 65536]]),
        ("peers", [["fe80::1%eth0", 1]]),
        ("peers", [["192.0.2.2"]]),
        ("ended", 1),
    ],
)
def test_value_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(RecordError, match=f"{field} is out of range"):
        record_decode(changed(USAGE, **{field: value}))


def test_error_never_repeats_a_value() -> None:
    with pytest.raises(RecordError) as caught:
        record_decode(changed(SESSION, client_address="192.0.2.300"))
    assert "192" not in str(caught.value)


def test_contradictions_are_refused() -> None:
    contradictions: list[tuple[dict[str, object], str]] = [
        ({"interval_ended_at": 1_700_000_004_000_000}, "before interval_started_at"),
        ({"session_started_at": 1_700_000_006_000_000}, "before session_started_at"),
        ({"client_sent": 21}, "more bytes than the total"),
    ]
    for changes, message in contradictions:
        with pytest.raises(RecordError, match=message):
            record_decode(changed(USAGE, **changes))
