"""Usage by the hour: from the relay's records to what billing reads."""

from __future__ import annotations

from datetime import datetime

from django.db import connection, transaction

from relay.models import UsageHour
from relay.services.locks import USAGE_HOURS, books_lock

# One statement marks the records and adds them up: both happen, or neither.
_ROLL_UP = """
    WITH taken AS (
        UPDATE relay_usagerecord SET is_rolled_up = true WHERE NOT is_rolled_up
        RETURNING project_id, date_trunc('hour', interval_started_at, 'UTC') AS hour,
                  client_received_bytes, client_sent_bytes, peer_received_bytes, peer_sent_bytes),
    added AS (
        INSERT INTO relay_usagehour AS total (
            project_id, hour, client_received_bytes, client_sent_bytes, peer_received_bytes,
            peer_sent_bytes, is_rated)
        SELECT project_id, hour, sum(client_received_bytes), sum(client_sent_bytes),
               sum(peer_received_bytes), sum(peer_sent_bytes), false
          FROM taken GROUP BY project_id, hour
            ON CONFLICT (project_id, hour) DO UPDATE
           SET client_received_bytes = total.client_received_bytes + EXCLUDED.client_received_bytes,
               client_sent_bytes = total.client_sent_bytes + EXCLUDED.client_sent_bytes,
               peer_received_bytes = total.peer_received_bytes + EXCLUDED.peer_received_bytes,
               peer_sent_bytes = total.peer_sent_bytes + EXCLUDED.peer_sent_bytes,
               is_rated = false)
    SELECT count(*) FROM taken
"""


def usage_roll_up() -> int:
    """Add the usage records that were not yet counted to the hours of their projects.

    A record is counted once, however often, by how many at a time, and after whatever crash this
    runs.

    Returns:
        How many records were counted.
    """
    with transaction.atomic():
        books_lock(USAGE_HOURS)
        with connection.cursor() as cursor:
            cursor.execute(_ROLL_UP)
            (records,) = cursor.fetchone()
            return int(records)


def usage_hours_take(
    *, organisation_id: int, starts_at: datetime, ends_at: datetime
) -> list[UsageHour]:
    """The hours of an organisation's projects within [starts_at, ends_at), marked as rated.

    To be called in a transaction, the one that stores what they cost: nobody else changes an hour
    until it ends. In the order of hour and project.
    """
    books_lock(USAGE_HOURS)
    hours = UsageHour.objects.filter(
        project__organisation=organisation_id, hour__gte=starts_at, hour__lt=ends_at
    )
    hours.filter(is_rated=False).update(is_rated=True)
    return list(hours.select_related("project").order_by("hour", "project_id"))
