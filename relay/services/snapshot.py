"""What the database says to a relay: the messages of every row that is newer than what it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import merge
from itertools import islice
from typing import Final

from django.db import connection

from relay.control.messages import (
    ControlMessage,
    CredentialExtend,
    CredentialLimit,
    CredentialRevoke,
    ProjectLimitsSet,
    SessionEnd,
)
from relay.control.snapshot import Snapshot
from relay.core.limits import OnExpiry, ProjectLimits
from relay.models import ControlVersion, CredentialOverride, EndedSession, ProjectLimit

ROWS_MAX: Final = 2000
Row = tuple[int, list[ControlMessage]]


def snapshot_read(*, since: int, now: datetime, rows_max: int = ROWS_MAX) -> Snapshot:
    """A page of what is newer than a version, the oldest first.

    Args:
        since: what the relay has; of a page that is not the last, ask on from its version.
        now: rows that nobody needs any more are left out.
        rows_max: of one page.
    """
    # Read before the rows: what is committed meanwhile has a later version, and comes again.
    newest = ControlVersion.objects.values_list("number", flat=True).first() or 0
    rows = list(
        islice(
            merge(
                _project_rows(since, rows_max + 1),
                _override_rows(since, now, rows_max + 1),
                _session_rows(since, now, rows_max + 1),
                key=lambda row: row[0],
            ),
            rows_max + 1,
        )
    )
    page = rows[:rows_max]
    messages = tuple(message for _, found in page for message in found)
    if len(rows) > rows_max and page[-1][0] < newest:
        return Snapshot(page[-1][0], messages, is_last=False)
    return Snapshot(newest, messages, is_last=True)


def snapshot_read_alone(*, since: int, now: datetime) -> Snapshot:
    """The same in a thread of its own, whose connection to the database is closed afterwards."""
    try:
        return snapshot_read(since=since, now=now)
    finally:
        connection.close()


def _project_rows(since: int, count: int) -> Iterator[Row]:
    rows = ProjectLimit.objects.filter(version__gt=since).select_related("project")
    for row in rows.order_by("version")[:count]:
        yield row.version, [project_message(row, row.project.public_id)]


def _override_rows(since: int, now: datetime, count: int) -> Iterator[Row]:
    rows = CredentialOverride.objects.filter(version__gt=since, until__gt=now)
    for row in rows.select_related("project").order_by("version")[:count]:
        yield row.version, list(override_messages(row, row.project.public_id))


def _session_rows(since: int, now: datetime, count: int) -> Iterator[Row]:
    rows = EndedSession.objects.filter(version__gt=since, until__gt=now)
    for row in rows.order_by("version")[:count]:
        yield row.version, [SessionEnd(row.node, row.boot, row.allocation)]


def project_message(row: ProjectLimit, project: str) -> ControlMessage:
    """What holds for a project."""
    if not row.is_own:
        return ProjectLimitsSet(project, None)
    return ProjectLimitsSet(
        project,
        ProjectLimits(
            on_expiry=OnExpiry(row.on_expiry),
            allocations_max=row.allocations_max,
            bitrate_bps_max=row.bitrate_bps_max,
            media_only=row.media_only,
        ),
    )


def override_messages(row: CredentialOverride, project: str) -> Iterable[ControlMessage]:
    """Everything that holds for a credential."""
    yield limit_message(row, project)
    if row.expires_at is not None:
        yield extension_message(row, project)
    if row.revoked_at is not None:
        yield revocation_message(row, project)


def limit_message(row: CredentialOverride, project: str) -> CredentialLimit:
    """The limits of a credential."""
    return CredentialLimit(
        project=project,
        credential=row.credential,
        until=row.until.timestamp(),
        on_expiry=OnExpiry(row.on_expiry) if row.on_expiry else None,
        allocations_max=row.allocations_max,
        bitrate_bps_max=row.bitrate_bps_max,
    )


def extension_message(row: CredentialOverride, project: str) -> CredentialExtend:
    """The new end of a credential that has one."""
    assert row.expires_at is not None
    return CredentialExtend(
        project=project,
        credential=row.credential,
        expires_at=row.expires_at.timestamp(),
        until=row.until.timestamp(),
    )


def revocation_message(row: CredentialOverride, project: str) -> CredentialRevoke:
    """A credential is revoked."""
    return CredentialRevoke(project=project, credential=row.credential, until=row.until.timestamp())
