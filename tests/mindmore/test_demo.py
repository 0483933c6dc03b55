"""The demo organisation is made once, for this database and this data directory."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.test import Client
from pytest_django import Settings

from accounts.models import Organisation, User
from accounts.selectors import api_key_authenticate, project_for
from accounts.services import api_key_revoke
from mindmore.demo import EMAIL, demo_seed

pytestmark = pytest.mark.django_db


def seeded(home: Path) -> dict[str, Any]:
    demo_seed(home=home)
    demo: dict[str, Any] = json.loads((home / "demo.json").read_text())
    return demo


def test_demo_file_opens_what_it_names(tmp_path: Path) -> None:
    demo = seeded(tmp_path)
    user = User.objects.get(email=EMAIL)
    api_key = api_key_authenticate(key=demo["api_key"])
    assert user.check_password(demo["password"])
    assert api_key
    assert api_key.project == project_for(user=user, public_id=demo["project"])
    assert api_key.project.organisation.public_id == demo["organisation"]
    assert EmailAddress.objects.get(user=user).verified
    assert not user.is_staff
    assert stat.S_IMODE((tmp_path / "demo.json").stat().st_mode) == 0o600


def test_demo_user_can_sign_in(tmp_path: Path, client: Client) -> None:
    demo = seeded(tmp_path)
    assert client.login(email=demo["email"], password=demo["password"])


def test_second_start_changes_nothing(tmp_path: Path) -> None:
    before = seeded(tmp_path)
    assert seeded(tmp_path) == before
    assert User.objects.count() == Organisation.objects.count() == 1


def test_what_was_revoked_or_changed_is_not_offered_any_more(tmp_path: Path) -> None:
    before = seeded(tmp_path)
    api_key = api_key_authenticate(key=before["api_key"])
    assert api_key
    api_key_revoke(api_key=api_key)
    assert seeded(tmp_path) == {**before, "api_key": ""}
    user = User.objects.get(email=EMAIL)
    user.set_password("another one")
    user.save()
    assert seeded(tmp_path) == {**before, "api_key": "", "password": ""}


def test_addresses_follow_the_settings(tmp_path: Path, settings: Settings) -> None:
    before = seeded(tmp_path)
    settings.SITE_URL = "https://calls.example"
    settings.TURN_HOST = "turn.example"
    settings.TURN_PORT = 443
    assert seeded(tmp_path) == {
        **before,
        "web_url": "https://calls.example",
        "turn_host": "turn.example",
        "turn_port": 443,
    }


def test_password_that_the_user_changed_stays(tmp_path: Path) -> None:
    seeded(tmp_path)
    user = User.objects.get(email=EMAIL)
    user.set_password("their own")
    user.save()
    seeded(tmp_path)
    assert User.objects.get(email=EMAIL).check_password("their own")


@pytest.mark.parametrize("content", [None, "", "{}", "[]"])
def test_lost_demo_file_gives_new_secrets(tmp_path: Path, content: str | None) -> None:
    before = seeded(tmp_path)
    (tmp_path / "demo.json").unlink()
    if content is not None:
        (tmp_path / "demo.json").write_text(content)
    after = seeded(tmp_path)
    assert after["api_key"] != before["api_key"]
    assert User.objects.get(email=EMAIL).check_password(after["password"])


def test_file_of_another_database_is_not_believed(tmp_path: Path) -> None:
    before = seeded(tmp_path)
    Organisation.objects.all()[0].projects.all().delete()
    Organisation.objects.all().delete()
    User.objects.all().delete()
    after = seeded(tmp_path)
    assert after["api_key"] != before["api_key"]
    assert api_key_authenticate(key=after["api_key"])
