"""The meter: every byte is in exactly one record, and in the right hour."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.metering.meter import Meter
from relay.metering.records import (
    AuthenticationRecord,
    MoveRecord,
    Record,
    SessionRecord,
    UsageRecord,
    record_decode,
    record_encode,
)
from tests.relay.metering.examples import Allocation

HOUR = 1_700_002_800.0  # a full hour
COUNTERS = ("client_received", "client_sent", "peer_received", "peer_sent")


class Gathered(list[Record]):
    """A journal in memory; what it takes must survive being written down."""

    def append(self, record: Record) -> None:
        assert record_decode(record_encode(record)) == record
        super().append(record)

    def usage(self, allocation: int = 1) -> list[UsageRecord]:
        return [
            record
            for record in self
            if isinstance(record, UsageRecord) and record.allocation == allocation
        ]


def make() -> tuple[Meter, Gathered]:
    journal = Gathered()
    return Meter(journal, node="node-1", boot="b00t"), journal


def test_session_is_written_when_it_starts() -> None:
    meter, journal = make()
    meter.session_started(Allocation(), HOUR)
    assert journal == [
        SessionRecord("node-1", "b00t", 1, HOUR, "prj_abcdefghijkl", "192.0.2.1", 5000, "udp", 1)
    ]


def test_every_address_that_the_client_moves_to_is_written_with_its_time() -> None:
    meter, journal = make()
    allocation = Allocation()
    meter.session_started(allocation, HOUR)
    session = ("node-1", "b00t", 1)
    allocation.client, allocation.transport = ("2001:db8::9", 6000), "tls"
    meter.session_moved(allocation, HOUR + 7)
    allocation.client, allocation.transport = ("192.0.2.1", 5000), "udp"
    meter.session_moved(allocation, HOUR - 3)  # the clock was set back
    assert journal[1:] == [
        MoveRecord(*(*session, 1, "prj_abcdefghijkl", HOUR, HOUR + 7, "2001:db8::9", 6000, "tls")),
        MoveRecord(*(*session, 2, "prj_abcdefghijkl", HOUR, HOUR, "192.0.2.1", 5000, "udp")),
    ]


def test_move_of_an_allocation_that_has_ended_writes_nothing() -> None:
    meter, journal = make()
    allocation = Allocation()
    meter.session_started(allocation, HOUR)
    meter.session_ended(allocation, HOUR + 1)
    before = len(journal)
    meter.session_moved(allocation, HOUR + 2)
    assert len(journal) == before


def test_idle_allocation_writes_nothing_until_it_ends() -> None:
    meter, journal = make()
    allocation = Allocation()
    meter.session_started(allocation, HOUR)
    for second in range(5, 60, 5):
        meter.flush(HOUR + second)
    assert journal.usage() == []
    meter.session_ended(allocation, HOUR + 61)
    [last] = journal.usage()
    assert last.ended
    assert last.sequence == 1
    assert (last.interval_started_at, last.interval_ended_at) == (HOUR + 55, HOUR + 61)


def test_interval_begins_where_the_allocation_was_last_looked_at() -> None:
    meter, journal = make()
    allocation = Allocation()
    meter.session_started(allocation, HOUR + 1)
    meter.flush(HOUR + 5)
    meter.flush(HOUR + 10)
    allocation.client_sent_bytes = 100
    meter.flush(HOUR + 15)
    [record] = journal.usage()
    assert (record.interval_started_at, record.interval_ended_at) == (HOUR + 10, HOUR + 15)


def test_new_peer_is_reported_once_and_without_bytes() -> None:
    meter, journal = make()
    allocation = Allocation()
    meter.session_started(allocation, HOUR)
    allocation.peers_unreported.append(("192.0.2.9", 7))
    meter.flush(HOUR + 5)
    allocation.client_sent_bytes = 1
    meter.flush(HOUR + 10)
    assert [record.peers for record in journal.usage()] == [(("192.0.2.9", 7),), ()]
    assert allocation.peers_unreported == []


def test_end_is_written_once() -> None:
    meter, journal = make()
    allocation = Allocation()
    meter.session_started(allocation, HOUR)
    for _ in range(2):
        meter.session_ended(allocation, HOUR + 1)
    meter.session_ended(Allocation(id=99), HOUR + 1)
    assert [record.ended for record in journal if isinstance(record, UsageRecord)] == [True]


def test_end_between_two_steps_of_a_flush_counts_each_byte_once() -> None:
    meter, journal = make()
    allocations = [Allocation(id=number) for number in range(3)]
    for allocation in allocations:
        meter.session_started(allocation, HOUR)
        allocation.client_sent_bytes = 10
    steps = meter.flush_steps(HOUR + 5, allocations_per_step=1)
    next(steps)
    for allocation in allocations:
        allocation.client_sent_bytes = 15
        meter.session_ended(allocation, HOUR + 5)
    assert list(steps) == [None, None]
    for allocation in allocations:
        records = journal.usage(allocation.id)
        assert sum(record.client_sent for record in records) == 15
        assert [record.ended for record in records].count(True) == 1


def test_full_hours_are_flush_times() -> None:
    meter, _ = make()
    assert meter.next_flush_at(HOUR - 0.001) == HOUR
    assert meter.next_flush_at(HOUR) == HOUR + 5
    assert meter.next_flush_at(HOUR + 7.5) == HOUR + 10


def test_interval_that_does_not_divide_an_hour_is_refused() -> None:
    for seconds in (0, -5, 7):
        with pytest.raises(ValueError, match="divide an hour"):
            Meter(Gathered(), node="n", boot="b", interval_seconds=seconds)


def test_clock_set_back_loses_no_byte_and_makes_no_impossible_record() -> None:
    meter, journal = make()
    allocation = Allocation()
    meter.session_started(allocation, HOUR)
    allocation.client_sent_bytes = 5
    meter.flush(HOUR + 5)
    allocation.client_sent_bytes = 9
    meter.flush(HOUR - 3600)
    allocation.client_sent_bytes = 12
    meter.session_ended(allocation, HOUR - 3595)
    assert [record.client_sent for record in journal.usage()] == [5, 4, 3]


def test_authentication_events_are_numbered_those_that_began_a_session_with_them() -> None:
    meter, journal = make()

    def authentication(outcome: str) -> None:
        meter.authentication(
            now=HOUR, client=("192.0.2.1", 5), transport="udp", outcome=outcome, project=None
        )

    authentication("expired")
    meter.session_started(Allocation(), HOUR + 1)
    authentication("accepted")
    first, session, last = journal
    assert isinstance(first, AuthenticationRecord)
    assert isinstance(session, SessionRecord)
    assert isinstance(last, AuthenticationRecord)
    assert (first.number, first.outcome) == (1, "expired")
    assert session.event == AuthenticationRecord(
        "node-1", "b00t", 2, HOUR + 1, "prj_abcdefghijkl", "192.0.2.1", 5000, "udp", "accepted"
    )
    assert (last.number, last.outcome) == (3, "accepted")


@given(
    steps=st.lists(
        st.tuples(
            st.floats(min_value=0, max_value=5),
            st.tuples(*[st.integers(min_value=0, max_value=10_000)] * 4),
        ),
        max_size=30,
    )
)
def test_deltas_sum_to_the_totals_and_intervals_never_overlap(
    steps: list[tuple[float, tuple[int, int, int, int]]],
) -> None:
    meter, journal = make()
    allocation = Allocation()
    now = HOUR
    meter.session_started(allocation, now)
    for pause, grown in steps:
        now = round(now + pause, 6)
        for name, bytes_more in zip(COUNTERS, grown, strict=True):
            name += "_bytes"
            setattr(allocation, name, getattr(allocation, name) + bytes_more)
        meter.flush(now)
    meter.session_ended(allocation, now)
    records = journal.usage()
    assert [record.sequence for record in records] == list(range(1, len(records) + 1))
    for name in COUNTERS:
        total = getattr(allocation, f"{name}_bytes")
        assert sum(getattr(record, name) for record in records) == total
        assert getattr(records[-1], f"{name}_total") == total
    for before, after in pairwise(records):
        assert before.interval_ended_at <= after.interval_started_at
    for record in records:
        assert record.interval_ended_at - record.interval_started_at <= 5.000001
