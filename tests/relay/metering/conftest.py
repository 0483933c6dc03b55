"""A second tenant beside Alice's project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import transaction

from accounts.models import Organisation, Project
from accounts.services import project_create


@pytest.fixture
def other_project(db: None) -> Project:
    return project_create(organisation=Organisation.objects.create(name="Other"), name="Games")


@contextmanager
def rolled_back() -> Iterator[None]:
    """Undo what happens inside: for the many examples of one property."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
