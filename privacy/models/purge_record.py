"""What the retention job deleted, without a word of what it said."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class PurgeRecord(models.Model):
    """One portion that one holder deleted: a day's partition, or rows past their time."""

    holder = models.CharField(max_length=100)
    retention_class = models.CharField(max_length=50)
    part = models.CharField(max_length=100)
    rows = models.PositiveBigIntegerField()
    purged_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-purged_at", "-id"]

    def __str__(self) -> str:
        return f"{self.holder}: {self.part}, {self.rows} rows"
