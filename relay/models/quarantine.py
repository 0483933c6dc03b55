"""Records of the journal that were refused, for the operator to look at."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class QuarantineReason(models.TextChoices):
    MALFORMED = "malformed", "not a record"
    CONTRADICTION = "contradiction", "same key as an earlier record, other content"
    FUTURE = "future", "more than 5 minutes in the future"
    PAST = "past", "more than a year in the past"
    UNKNOWN_PROJECT = "unknown_project", "names a project that does not exist"


class QuarantinedRecord(models.Model):
    """One refused record: not billed, not in the logs, listed here instead.

    `payload` is the record without its addresses and ports, which nobody needs in order to find
    out what went wrong: a row here says nothing about a person. Of a line that is no record it is
    the reason only. `digest` makes a refused record that is shipped again one row still.
    """

    digest = models.CharField(max_length=64, unique=True, editable=False)
    reason = models.CharField(max_length=16, choices=QuarantineReason.choices)
    node = models.CharField(max_length=64)
    boot = models.CharField(max_length=64)
    payload = models.JSONField()
    received_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-received_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.reason} from {self.node}/{self.boot}"
