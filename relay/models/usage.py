"""What was relayed: as the relay reported it, and by the hour. No address, no user name."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from accounts.models import Project


class UsageRecord(models.Model):
    """One usage record of one allocation; partitioned like its session, with which it goes.

    Its key is (node, boot, allocation, sequence). The session's start is in it because the
    partitions need it there: it is the same for all records of an allocation. The four counters are
    of the interval, the totals since the allocation began.
    """

    pk = models.CompositePrimaryKey("node", "boot", "allocation", "sequence", "session_started_at")
    node = models.CharField(max_length=64)
    boot = models.CharField(max_length=64)
    allocation = models.PositiveBigIntegerField()
    sequence = models.PositiveBigIntegerField()
    # Not enforced by the database, as in `relay.models.connection_log`.
    project = models.ForeignKey(
        Project, models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    session_started_at = models.DateTimeField()
    interval_started_at = models.DateTimeField()
    interval_ended_at = models.DateTimeField()
    client_received_bytes = models.PositiveBigIntegerField()
    client_sent_bytes = models.PositiveBigIntegerField()
    peer_received_bytes = models.PositiveBigIntegerField()
    peer_sent_bytes = models.PositiveBigIntegerField()
    client_received_total_bytes = models.PositiveBigIntegerField()
    client_sent_total_bytes = models.PositiveBigIntegerField()
    peer_received_total_bytes = models.PositiveBigIntegerField()
    peer_sent_total_bytes = models.PositiveBigIntegerField()
    is_last = models.BooleanField()
    is_rolled_up = models.BooleanField(default=False)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                "project", name="usage_not_rolled_up", condition=models.Q(is_rolled_up=False)
            )
        ]

    def __str__(self) -> str:
        return f"{self.node}/{self.boot}/{self.allocation}/{self.sequence}"


class UsageHour(models.Model):
    """What one project relayed in one hour (UTC): what is billed, and kept as long as bills are.

    Usage belongs to the hour in which its interval began.
    """

    project = models.ForeignKey(Project, models.PROTECT, related_name="usage_hours")
    hour = models.DateTimeField()
    client_received_bytes = models.PositiveBigIntegerField()
    client_sent_bytes = models.PositiveBigIntegerField()
    peer_received_bytes = models.PositiveBigIntegerField()
    peer_sent_bytes = models.PositiveBigIntegerField()
    # Whether billing has taken these figures into account; new usage of the hour clears it.
    is_rated = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["project", "hour"], name="one_row_per_project_and_hour")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index("project", name="usage_hour_not_rated", condition=models.Q(is_rated=False))
        ]

    def __str__(self) -> str:
        return f"{self.project_id} at {self.hour:%Y-%m-%dT%H}Z"
