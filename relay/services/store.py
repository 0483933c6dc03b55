"""The SQL of ingest: lists of records in, a few statements each, no row at a time.

A batch travels to PostgreSQL as one array per column. Every statement runs inside the transaction
and under the lock of `relay.services.ingest`. Seconds become timestamps in PostgreSQL only, so that
the same number is the same time everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from django.db import connection

from relay.metering.records import (
    AuthenticationRecord,
    MoveRecord,
    SessionRecord,
    UsageRecord,
)

_SessionKey = tuple[str, str, int, float]
R = TypeVar("R", SessionRecord, UsageRecord, MoveRecord, AuthenticationRecord)


@dataclass
class Inserted(Generic[R]):
    """What became of a list of records.

    Attributes:
        new: those stored now.
        repeated: how many were there already, word for word.
        contradictions: those whose key was there with other content; the first copy stays.
    """

    new: list[R] = field(default_factory=list)
    repeated: int = 0
    contradictions: list[R] = field(default_factory=list)

    def reject(self, records: Collection[R]) -> None:
        """Take `records`, stored after all, for contradictions."""
        if records:
            self.new = [record for record in self.new if record not in records]
            self.contradictions.extend(records)


_USAGE_BATCH = """
    unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[],
           %s::float8[], %s::float8[], %s::float8[],
           %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
           %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::boolean[])
    WITH ORDINALITY AS batch (
        node, boot, allocation, sequence, project_id,
        session_started_at, interval_started_at, interval_ended_at,
        client_received, client_sent, peer_received, peer_sent,
        client_received_total, client_sent_total, peer_received_total, peer_sent_total,
        is_last, position)
"""
_USAGE_INSERT = f"""
    INSERT INTO relay_usagerecord (
        node, boot, allocation, sequence, project_id,
        session_started_at, interval_started_at, interval_ended_at,
        client_received_bytes, client_sent_bytes, peer_received_bytes, peer_sent_bytes,
        client_received_total_bytes, client_sent_total_bytes,
        peer_received_total_bytes, peer_sent_total_bytes, is_last, is_rolled_up)
    SELECT node, boot, allocation, sequence, project_id,
           to_timestamp(session_started_at), to_timestamp(interval_started_at),
           to_timestamp(interval_ended_at),
           client_received, client_sent, peer_received, peer_sent,
           client_received_total, client_sent_total, peer_received_total, peer_sent_total,
           is_last, false
      FROM {_USAGE_BATCH}
        ON CONFLICT DO NOTHING
    RETURNING node, boot, allocation, sequence
"""  # noqa: S608
_USAGE_COMPARE = f"""
    SELECT batch.position
      FROM {_USAGE_BATCH}
      JOIN relay_usagerecord AS row
        ON row.node = batch.node AND row.boot = batch.boot
       AND row.allocation = batch.allocation AND row.sequence = batch.sequence
       AND row.session_started_at = to_timestamp(batch.session_started_at)
     WHERE (row.project_id, row.interval_started_at, row.interval_ended_at,
            row.client_received_bytes, row.client_sent_bytes,
            row.peer_received_bytes, row.peer_sent_bytes,
            row.client_received_total_bytes, row.client_sent_total_bytes,
            row.peer_received_total_bytes, row.peer_sent_total_bytes, row.is_last)
        <> (batch.project_id, to_timestamp(batch.interval_started_at),
            to_timestamp(batch.interval_ended_at),
            batch.client_received, batch.client_sent, batch.peer_received, batch.peer_sent,
            batch.client_received_total, batch.client_sent_total,
            batch.peer_received_total, batch.peer_sent_total, batch.is_last)
"""  # noqa: S608
# A record whose session began at another time than the session we know by that name.
_USAGE_STRAY = """
    DELETE FROM relay_usagerecord AS row
     USING unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::float8[])
        AS batch (node, boot, allocation, sequence, session_started_at)
      JOIN relay_session AS session
        ON session.node = batch.node AND session.boot = batch.boot
       AND session.allocation = batch.allocation
     WHERE row.node = batch.node AND row.boot = batch.boot
       AND row.allocation = batch.allocation AND row.sequence = batch.sequence
       AND row.session_started_at = to_timestamp(batch.session_started_at)
    RETURNING row.node, row.boot, row.allocation, row.sequence
"""
_PEERS_INSERT = """
    INSERT INTO relay_peerflow (node, boot, allocation, peer_address, peer_port, session_started_at)
    SELECT node, boot, allocation, peer_address, peer_port, to_timestamp(session_started_at)
      FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::inet[], %s::int[], %s::float8[])
        AS batch (node, boot, allocation, peer_address, peer_port, session_started_at)
        ON CONFLICT DO NOTHING
"""
_SESSIONS_BATCH = """
    unnest(%s::text[], %s::text[], %s::bigint[], %s::float8[], %s::bigint[],
           %s::inet[], %s::int[], %s::text[])
    WITH ORDINALITY AS batch (
        node, boot, allocation, started_at, project_id, client_address, client_port, transport,
        position)
"""
# Looking a day to either side, not everywhere, asks three partitions instead of thirty-odd.
_SESSIONS_FIND = f"""
    SELECT batch.position,
           (row.started_at, row.project_id, row.client_address, row.client_port, row.transport)
         = (to_timestamp(batch.started_at), batch.project_id, batch.client_address,
            batch.client_port, batch.transport)
      FROM {_SESSIONS_BATCH}
      JOIN relay_session AS row
        ON row.node = batch.node AND row.boot = batch.boot AND row.allocation = batch.allocation
       AND row.started_at >= to_timestamp(batch.started_at) - interval '1 day'
       AND row.started_at <= to_timestamp(batch.started_at) + interval '1 day'
"""  # noqa: S608
_SESSIONS_INSERT = f"""
    INSERT INTO relay_session (
        node, boot, allocation, started_at, project_id, client_address, client_port, transport,
        client_received_bytes, client_sent_bytes, peer_received_bytes, peer_sent_bytes)
    SELECT node, boot, allocation, to_timestamp(started_at), project_id, client_address,
           client_port, transport, 0, 0, 0, 0
      FROM {_SESSIONS_BATCH}
"""  # noqa: S608
_SESSIONS_UPDATE = """
    UPDATE relay_session AS row
       SET client_received_bytes = greatest(row.client_received_bytes, usage.client_received),
           client_sent_bytes = greatest(row.client_sent_bytes, usage.client_sent),
           peer_received_bytes = greatest(row.peer_received_bytes, usage.peer_received),
           peer_sent_bytes = greatest(row.peer_sent_bytes, usage.peer_sent),
           ended_at = coalesce(to_timestamp(usage.ended_at), row.ended_at)
      FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::float8[],
                  %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::float8[], %s::int[])
        AS usage (node, boot, allocation, started_at,
                  client_received, client_sent, peer_received, peer_sent, ended_at, index)
     WHERE row.node = usage.node AND row.boot = usage.boot AND row.allocation = usage.allocation
       AND row.started_at = to_timestamp(usage.started_at)
    RETURNING usage.index
"""
# Only a session that comes after its usage (a journal that was taken apart) finds anything here.
_SESSIONS_CATCH_UP = """
    UPDATE relay_session AS row
       SET client_received_bytes = usage.client_received,
           client_sent_bytes = usage.client_sent,
           peer_received_bytes = usage.peer_received,
           peer_sent_bytes = usage.peer_sent,
           ended_at = usage.ended_at
      FROM (SELECT usage.node, usage.boot, usage.allocation, usage.session_started_at,
                   max(usage.client_received_total_bytes) AS client_received,
                   max(usage.client_sent_total_bytes) AS client_sent,
                   max(usage.peer_received_total_bytes) AS peer_received,
                   max(usage.peer_sent_total_bytes) AS peer_sent,
                   max(usage.interval_ended_at) FILTER (WHERE usage.is_last) AS ended_at
              FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::float8[])
                AS batch (node, boot, allocation, started_at)
              JOIN relay_usagerecord AS usage
                ON usage.node = batch.node AND usage.boot = batch.boot
               AND usage.allocation = batch.allocation
               AND usage.session_started_at = to_timestamp(batch.started_at)
             GROUP BY usage.node, usage.boot, usage.allocation, usage.session_started_at) AS usage
     WHERE row.node = usage.node AND row.boot = usage.boot AND row.allocation = usage.allocation
       AND row.started_at = usage.session_started_at
"""
_MOVES_BATCH = """
    unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::float8[], %s::float8[],
           %s::inet[], %s::int[], %s::text[])
    WITH ORDINALITY AS batch (
        node, boot, allocation, number, session_started_at, moved_at, client_address, client_port,
        transport, position)
"""
_MOVES_FIND = f"""
    SELECT batch.position,
           (row.session_started_at, row.moved_at, row.client_address, row.client_port,
            row.transport)
         = (to_timestamp(batch.session_started_at), to_timestamp(batch.moved_at),
            batch.client_address, batch.client_port, batch.transport)
      FROM {_MOVES_BATCH}
      JOIN relay_sessionmove AS row
        ON row.node = batch.node AND row.boot = batch.boot
       AND row.allocation = batch.allocation AND row.number = batch.number
       AND row.session_started_at >= to_timestamp(batch.session_started_at) - interval '1 day'
       AND row.session_started_at <= to_timestamp(batch.session_started_at) + interval '1 day'
"""  # noqa: S608
_MOVES_INSERT = f"""
    INSERT INTO relay_sessionmove (
        node, boot, allocation, number, session_started_at, moved_at, client_address, client_port,
        transport)
    SELECT node, boot, allocation, number, to_timestamp(session_started_at),
           to_timestamp(moved_at), client_address, client_port, transport
      FROM {_MOVES_BATCH}
"""  # noqa: S608
_EVENTS_BATCH = """
    unnest(%s::text[], %s::text[], %s::bigint[], %s::float8[], %s::bigint[],
           %s::inet[], %s::int[], %s::text[], %s::text[])
    WITH ORDINALITY AS batch (
        node, boot, number, occurred_at, project_id, client_address, client_port, transport,
        outcome, position)
"""
_EVENTS_FIND = f"""
    SELECT batch.position,
           (row.occurred_at, row.client_address, row.client_port, row.transport, row.outcome)
         = (to_timestamp(batch.occurred_at), batch.client_address, batch.client_port,
            batch.transport, batch.outcome)
       AND row.project_id IS NOT DISTINCT FROM batch.project_id
      FROM {_EVENTS_BATCH}
      JOIN relay_authenticationevent AS row
        ON row.node = batch.node AND row.boot = batch.boot AND row.number = batch.number
       AND row.occurred_at >= to_timestamp(batch.occurred_at) - interval '1 day'
       AND row.occurred_at <= to_timestamp(batch.occurred_at) + interval '1 day'
"""  # noqa: S608
_EVENTS_INSERT = f"""
    INSERT INTO relay_authenticationevent (
        node, boot, number, occurred_at, project_id, client_address, client_port, transport,
        outcome)
    SELECT node, boot, number, to_timestamp(occurred_at), project_id, client_address, client_port,
           transport, outcome
      FROM {_EVENTS_BATCH}
"""  # noqa: S608
_SESSIONS_CLOSE = """
    UPDATE relay_session SET ended_at = greatest(started_at, to_timestamp(%s))
     WHERE node = %s AND boot = %s AND ended_at IS NULL
"""


def usage_insert(records: list[UsageRecord], projects: Mapping[str, int]) -> Inserted[UsageRecord]:
    """Store usage records."""
    done = Inserted[UsageRecord]()
    if not records:
        return done
    rows = [_usage_row(record, projects) for record in records]
    stored = set(_run(_USAGE_INSERT, rows))
    known = []
    for record, row in zip(records, rows, strict=True):
        if record[:4] in stored:
            done.new.append(record)
        else:
            known.append((record, row))
    if known:
        positions = {position for (position,) in _run(_USAGE_COMPARE, [row for _, row in known])}
        done.contradictions = [known[position - 1][0] for position in positions]
        done.repeated = len(known) - len(positions)
    return done


def usage_strays_remove(records: list[UsageRecord]) -> list[UsageRecord]:
    """Take out those of `records`, just stored, that contradict the session of their allocation.

    Args:
        records: whose session's row was not found. It may not have come yet: those stay.
    """
    if not records:
        return []
    rows = [(*record[:4], record.session_started_at) for record in records]
    removed = set(_run(_USAGE_STRAY, rows))
    return [record for record in records if record[:4] in removed]


def peers_insert(records: list[UsageRecord]) -> None:
    """Store the peers that usage records name."""
    peers = [
        (*record[:3], address, port, record.session_started_at)
        for record in records
        for address, port in record.peers
    ]
    if peers:
        _run(_PEERS_INSERT, peers)


def sessions_insert(
    records: list[SessionRecord], projects: Mapping[str, int]
) -> Inserted[SessionRecord]:
    """Store the beginnings of sessions."""
    done = _sift(records, _SESSIONS_FIND, [_session_row(record, projects) for record in records])
    if done.new:
        _run(_SESSIONS_INSERT, [_session_row(record, projects) for record in done.new])
    return done


def sessions_update(
    *, new_sessions: list[SessionRecord], new_usage: list[UsageRecord]
) -> list[UsageRecord]:
    """Bring totals and ends of sessions up to the usage records stored.

    Args:
        new_sessions: stored now; usage that came before them is counted in.
        new_usage: stored now.

    Returns:
        Those of `new_usage` whose session is not there.
    """
    latest: dict[_SessionKey, UsageRecord] = {}
    ended: dict[_SessionKey, float] = {}
    for record in new_usage:
        key = _session_key(record)
        known = latest.setdefault(key, record)
        if record.sequence > known.sequence:
            latest[key] = record
        if record.ended:
            ended[key] = record.interval_ended_at
    found: set[_SessionKey] = set()
    if latest:
        keys = list(latest)
        rows = [
            (*key, *latest[key][12:16], ended.get(key), index) for index, key in enumerate(keys)
        ]
        found = {keys[index] for (index,) in _run(_SESSIONS_UPDATE, rows)}
    if new_sessions:
        _run(_SESSIONS_CATCH_UP, [session[:4] for session in new_sessions])
    return [record for record in new_usage if _session_key(record) not in found]


def moves_insert(records: list[MoveRecord]) -> Inserted[MoveRecord]:
    """Store the addresses that clients moved to."""
    rows = [(*record[:4], *record[5:]) for record in records]
    done = _sift(records, _MOVES_FIND, rows)
    if done.new:
        _run(_MOVES_INSERT, [(*record[:4], *record[5:]) for record in done.new])
    return done


def events_insert(
    records: list[AuthenticationRecord], projects: Mapping[str, int]
) -> Inserted[AuthenticationRecord]:
    """Store authentication events; one that names no known project stays without."""
    done = _sift(records, _EVENTS_FIND, [_event_row(record, projects) for record in records])
    if done.new:
        _run(_EVENTS_INSERT, [_event_row(record, projects) for record in done.new])
    return done


def sessions_close(*, node: str, boot: str, ended_at: float) -> int:
    """End the open sessions of a relay that is gone, at the time it was last heard of.

    A session whose own last record turns up after all gets the time that record says.

    Args:
        node: the relay's name.
        boot: which start of it.
        ended_at: unix seconds; a session that started later ended when it started.

    Returns:
        How many there were.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SESSIONS_CLOSE, [ended_at, node, boot])
        return int(cursor.rowcount)


def _sift(records: list[R], find: str, rows: Sequence[tuple[Any, ...]]) -> Inserted[R]:
    """Tell new records from copies and contradictions of what is stored."""
    if not records:
        return Inserted()
    found: dict[int, bool] = {}
    for position, same in _run(find, rows):
        found[position - 1] = found.get(position - 1, True) and same
    return Inserted(
        new=[record for index, record in enumerate(records) if index not in found],
        repeated=sum(found.values()),
        contradictions=[records[index] for index, same in found.items() if not same],
    )


def _run(statement: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, _columns(rows))
        return cursor.fetchall() if cursor.description else []


def _session_key(record: UsageRecord) -> _SessionKey:
    return (record.node, record.boot, record.allocation, record.session_started_at)


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _usage_row(record: UsageRecord, projects: Mapping[str, int]) -> tuple[Any, ...]:
    return (*record[:4], projects[record.project], *record[5:16], record.ended)


def _session_row(record: SessionRecord, projects: Mapping[str, int]) -> tuple[Any, ...]:
    return (*record[:4], projects[record.project], *record[5:8])


def _event_row(record: AuthenticationRecord, projects: Mapping[str, int]) -> tuple[Any, ...]:
    return (*record[:4], projects.get(record.project or ""), *record[5:])
