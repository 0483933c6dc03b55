"""A project (an environment of a customer) and the API keys that mint credentials for it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from accounts.identifiers import project_public_id
from accounts.models.organisation import Organisation

CREDENTIAL_TTL_SECONDS_CEILING = 30 * 24 * 3600


class Project(models.Model):
    """What credentials are minted for and usage is counted by."""

    organisation = models.ForeignKey(Organisation, models.PROTECT, related_name="projects")
    public_id = models.CharField(
        max_length=32, unique=True, default=project_public_id, editable=False
    )
    name = models.CharField(max_length=100)
    credential_ttl_seconds_max = models.PositiveIntegerField(default=CREDENTIAL_TTL_SECONDS_CEILING)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["name", "pk"]

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """A secret of the customer's server; shown once, kept as prefix and SHA-256.

    The secret part has 256 random bits, so a plain hash is as good as a slow one, and a request
    can afford it.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16, db_index=True)
    key_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.prefix
