"""What is read of privacy's own records."""

from __future__ import annotations

from django.db.models import QuerySet

from privacy.models import PolicyVersion


def policy_versions() -> QuerySet[PolicyVersion]:
    """Every published version, the latest first; 0 is the founding policy."""
    return PolicyVersion.objects.all()


def policy_current() -> PolicyVersion | None:
    """The version in force; None where none is published yet."""
    return PolicyVersion.objects.filter(number__gt=0).first()
