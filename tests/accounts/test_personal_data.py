"""Everything that accounts holds about people is in the registry, and ends in time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from accounts.models import User
from accounts.personal_data import RATE_LIMITS
from privacy.registry import Category, registry
from privacy.retention.classes import SIGN_IN
from privacy.retention.engine import holders

pytestmark = pytest.mark.django_db

OURS = {"accounts", "account", "admin", "auth", "contenttypes", "mfa", "sessions"}


def test_every_field_is_classified() -> None:
    ours = {app.lower() for app in OURS}
    problems = registry.problems(apps.get_models(include_auto_created=True))
    assert [line for line in problems if line.split(".")[0] in ours] == []


def test_every_personal_field_is_account_information() -> None:
    categories = {
        declared.category
        for label, _, declared in registry.personal_fields()
        if label.split(".")[0] in OURS
    }
    assert categories == {Category.ACCOUNT}


def test_policys_words_for_accounts() -> None:
    words = registry.data(Category.ACCOUNT)
    assert words[:2] == ["name", "email address"]
    assert "company name" in words
    assert "username" not in words


def test_everything_with_a_period_has_somebody_who_deletes_it() -> None:
    mine = {label for label, _, d in registry.personal_fields() if d.retention is SIGN_IN}
    assert mine >= {"sessions.Session", "account.EmailConfirmation", RATE_LIMITS}
    assert [line for line in holders.problems(registry) if line.split(" ")[0] in mine] == []


def test_ended_session_is_deleted(client: Client, alice: User) -> None:
    client.force_login(alice)
    session = Session.objects.get()
    period = SIGN_IN.period
    assert period is not None
    assert session.expire_date <= timezone.now() + period
    holders.purge(now=session.expire_date - timedelta(seconds=1))
    assert Session.objects.count() == 1
    holders.purge(now=session.expire_date + timedelta(seconds=1))
    assert Session.objects.count() == 0


def test_name_and_address_of_a_person_stay_out_of_logs(alice: User) -> None:
    assert str(alice) == f"person {alice.pk}"
    assert "alice" not in repr(alice).lower()
