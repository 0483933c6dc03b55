"""The privacy policy as it was published: versions that nobody can change any more."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class PolicyVersion(models.Model):
    """One published version. A trigger in PostgreSQL refuses to update or delete it.

    Version 0 is the founding policy as received, kept for the record; the current version is the
    one with the highest number from 1 on.
    """

    number = models.PositiveIntegerField(primary_key=True)
    published_at = models.DateTimeField()
    document = models.JSONField()  # privacy.policy.document.document_json
    canonical_text = models.TextField()
    sha256 = models.CharField(max_length=64)

    class Meta:
        ordering: ClassVar[list[str]] = ["-number"]

    def __str__(self) -> str:
        return f"Privacy policy, version {self.number}"
