"""API keys: what is stored of them, and which are let in."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey, Project
from accounts.selectors import api_key_authenticate
from accounts.services import api_key_create, api_key_revoke, project_create


def test_key_has_the_agreed_form(project: Project) -> None:
    api_key, text = api_key_create(project=project, name="server")
    assert re.fullmatch(r"mm_[a-z2-7]{8}_[A-Za-z0-9_-]{43}", text)
    assert api_key.prefix == text[:11]


@pytest.mark.claim("S-78")
def test_database_never_holds_the_secret_part(project: Project) -> None:
    _, text = api_key_create(project=project, name="server")
    secret = text[12:]
    with connection.cursor() as cursor:
        cursor.execute("SELECT key::text FROM accounts_apikey AS key")
        [(row,)] = cursor.fetchall()
    assert secret not in row
    assert text[:11] in row


def test_key_authenticates_its_project(project: Project) -> None:
    api_key, text = api_key_create(project=project, name="server")
    found = api_key_authenticate(key=text)
    assert found == api_key
    assert found.project == project


def test_authentication_costs_one_query_with_the_project(project: Project) -> None:
    _, text = api_key_create(project=project, name="server")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        found = api_key_authenticate(key=text)
        assert found is not None
        assert found.project.public_id == project.public_id
    assert len(queries) == 1


def test_revoked_key_is_refused(project: Project) -> None:
    api_key, text = api_key_create(project=project, name="server")
    api_key_revoke(api_key=api_key)
    assert api_key_authenticate(key=text) is None


def test_revoking_twice_keeps_the_first_time(project: Project) -> None:
    api_key, _ = api_key_create(project=project, name="server")
    api_key_revoke(api_key=api_key)
    revoked_at = api_key.revoked_at
    api_key_revoke(api_key=api_key)
    assert api_key.revoked_at == revoked_at is not None


def test_two_keys_of_a_project_are_live_at_once(project: Project) -> None:
    old, old_text = api_key_create(project=project, name="old")
    new, new_text = api_key_create(project=project, name="new")
    assert api_key_authenticate(key=old_text) == old
    assert api_key_authenticate(key=new_text) == new
    api_key_revoke(api_key=old)
    assert api_key_authenticate(key=new_text) == new


def test_right_secret_under_another_prefix_is_refused(project: Project) -> None:
    other, _ = api_key_create(project=project, name="other")
    _, text = api_key_create(project=project, name="server")
    assert api_key_authenticate(key=other.prefix + text[11:]) is None


def test_keys_that_share_a_prefix_are_told_apart(project: Project) -> None:
    second_project = project_create(organisation=project.organisation, name="Staging")
    first, first_text = api_key_create(project=project, name="first")
    second, second_text = api_key_create(project=second_project, name="second")
    ApiKey.objects.filter(pk=second.pk).update(prefix=first.prefix)
    found = api_key_authenticate(key=first_text)
    assert found == first
    assert api_key_authenticate(key=second_text) is None


@pytest.mark.parametrize(
    "text", ["", "mm_", "mm_aaaaaaaa_", "\0", "é" * 55, "mm_AAAAAAAA_" + "a" * 43, "x" * 100_000]
)
@pytest.mark.django_db
def test_text_that_is_no_key_is_refused_without_a_query(text: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert api_key_authenticate(key=text) is None
    assert len(queries) == 0
