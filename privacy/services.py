"""What changes privacy's own records."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction

from privacy.models import PolicyVersion
from privacy.policy.document import (
    Document,
    document_json,
    document_parse,
    document_text,
    text_hash,
)
from privacy.policy.operator import Operator, operator_problems

FOUNDING_PATH = Path(__file__).parent / "policy" / "founding-policy.txt"


def policy_publish(
    *, document: Document, operator: Operator, now: datetime
) -> PolicyVersion | None:
    """Publish `document` as the next version, unless the current one says the same.

    The first call also stores the founding policy as version 0. Two callers at once publish once.

    Returns:
        The new version; None where nothing changed.

    Raises:
        ImproperlyConfigured: the operator's names and addresses are missing or placeholders.
    """
    problems = operator_problems(operator)
    if problems:
        raise ImproperlyConfigured("; ".join(problems))
    text = document_text(document)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('privacy.policy'))")
        latest = PolicyVersion.objects.first() or _version_create(0, _founding(), now)
        if latest.number and latest.canonical_text == text:
            return None
        return _version_create(latest.number + 1, document, now)


def _founding() -> Document:
    return document_parse(FOUNDING_PATH.read_text())


def _version_create(number: int, document: Document, now: datetime) -> PolicyVersion:
    text = document_text(document)
    return PolicyVersion.objects.create(
        number=number,
        published_at=now,
        document=document_json(document),
        canonical_text=text,
        sha256=text_hash(text),
    )
