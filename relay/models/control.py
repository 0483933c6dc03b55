"""What relays are told besides what a username says: limits, overrides, and sessions to be ended.

Every row has the version of its last change (`relay.services.control`). A relay asks for what is
newer than what it has, so a row says what holds; only one that no relay can need goes.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from accounts.models import Project


class OnExpiryChoice(models.TextChoices):
    """What becomes of a call when its credential ends (`relay.core.limits.OnExpiry`)."""

    CUT = "cut", "ends at once"
    DRAIN = "drain", "is refreshed no more"
    KEEP = "keep", "goes on"


class ControlVersion(models.Model):
    """One row: the version of the newest change. Whoever has it locked makes the next one."""

    id = models.PositiveSmallIntegerField(primary_key=True)
    number = models.PositiveBigIntegerField()

    def __str__(self) -> str:
        return str(self.number)


class ProjectLimit(models.Model):
    """The limits of one project; where `is_own` is false, those of the relays' settings again."""

    project = models.OneToOneField(Project, models.CASCADE, related_name="limit")
    version = models.PositiveBigIntegerField(db_index=True)
    is_own = models.BooleanField()
    on_expiry = models.CharField(max_length=5, choices=OnExpiryChoice.choices)
    allocations_max = models.PositiveIntegerField(null=True)
    bitrate_bps_max = models.PositiveBigIntegerField(null=True)
    media_only = models.BooleanField()

    def __str__(self) -> str:
        return f"limits of {self.project_id}"


class CredentialOverride(models.Model):
    """What its owner said of one credential after it was minted.

    `until` is no earlier than the end of the credential: then the row goes.
    """

    # Protected: without it a revoked credential would come back to life.
    project = models.ForeignKey(Project, models.PROTECT, related_name="credential_overrides")
    credential = models.CharField(max_length=64)
    version = models.PositiveBigIntegerField(db_index=True)
    until = models.DateTimeField(db_index=True)
    revoked_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    on_expiry = models.CharField(max_length=5, choices=OnExpiryChoice.choices, blank=True)
    allocations_max = models.PositiveIntegerField(null=True)
    bitrate_bps_max = models.PositiveBigIntegerField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["project", "credential"], name="one_override_per_credential"
            )
        ]

    def __str__(self) -> str:
        return f"override of {self.credential}"


class EndedSession(models.Model):
    """An allocation that somebody wants ended; kept until every relay has surely heard of it."""

    node = models.CharField(max_length=64)
    boot = models.CharField(max_length=64)
    allocation = models.PositiveBigIntegerField()
    version = models.PositiveBigIntegerField(db_index=True)
    until = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["node", "boot", "allocation"], name="one_end_per_session"
            )
        ]

    def __str__(self) -> str:
        return f"end of {self.node}/{self.boot}/{self.allocation}"
