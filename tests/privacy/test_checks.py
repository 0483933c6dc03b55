"""The system checks: every field and every table of the service is accounted for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.apps import apps
from django.db import connection
from pytest_django import Settings

from privacy import checks
from privacy.registry import Registry, registry
from privacy.retention.classes import SIGN_IN
from privacy.retention.engine import holders
from privacy.retention.partitions import partition_create
from tests.privacy.test_partitions import NEW_YEAR


@pytest.mark.claim("S-64")
def test_every_field_of_every_model_is_classified() -> None:
    assert registry.problems(apps.get_models(include_auto_created=True)) == []


def test_all_data_with_a_period_is_deleted_by_somebody() -> None:
    assert holders.problems(registry) == []


def test_service_with_an_unclassified_field_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "registry", Registry())
    ids = {error.id for error in checks.classification_check()}
    assert ids == {"privacy.E002"}


@pytest.mark.django_db
@pytest.mark.claim("S-64")
def test_every_table_belongs_to_a_model() -> None:
    assert checks.tables_without_model() == []


@pytest.mark.django_db
def test_table_without_a_model_is_found() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA elsewhere")
        cursor.execute("CREATE TABLE elsewhere.notes (word text)")
    assert checks.tables_without_model() == ["elsewhere.notes"]
    [error] = checks.tables_check(databases=["default"])
    assert error.id == "privacy.E005"


def test_partition_counts_to_its_table(logs_table: str) -> None:
    partition_create(table=logs_table, day=NEW_YEAR)
    assert checks.tables_without_model() == [f"public.{logs_table}"]


@pytest.mark.claim("S-75")
def test_sessions_end_within_the_period_of_section_7(settings: Settings) -> None:
    assert SIGN_IN.period is not None
    assert timedelta(seconds=settings.SESSION_COOKIE_AGE) <= SIGN_IN.period
    assert checks.session_age_check() == []
    settings.SESSION_COOKIE_AGE += 1
    [error] = checks.session_age_check()
    assert error.id == "privacy.E004"
