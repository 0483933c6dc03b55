"""The outbox of a development installation: for this machine, and for fourteen days."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.mail import EmailMessage, get_connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from mindmore.outbox import mail_list
from mindmore.personal_data import OUTBOX
from privacy.models import PurgeRecord
from privacy.registry import registry
from privacy.retention.classes import SIGN_IN
from privacy.retention.engine import holders

pytestmark = pytest.mark.django_db


@pytest.fixture
def mail_name(settings: Settings, tmp_path: Path) -> str:
    """A mail in an outbox of its own."""
    settings.OUTBOX_DIRECTORY = tmp_path / "outbox"
    message = EmailMessage("Confirm", "a link", to=["dana@example.org"])
    message.connection = get_connection("mindmore.outbox.EmailBackend")
    message.send()
    return mail_list()[0].name


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.0.2.7", 404),
        ("::ffff:192.0.2.7", 404),
        ("2001:db8::7", 404),
        ("", 404),
    ],
)
def test_outbox_answers_this_machine_only(
    client: Client, mail_name: str, address: str, status: int
) -> None:
    assert client.get("/outbox/", REMOTE_ADDR=address).status_code == status
    assert client.get(f"/outbox/{mail_name}/", REMOTE_ADDR=address).status_code == status


def test_outbox_is_a_registered_place_with_a_period() -> None:
    declared = [field for label, _, field in registry.personal_fields() if label == OUTBOX]
    assert declared
    assert {field.retention for field in declared} == {SIGN_IN}


def test_mail_older_than_its_period_is_purged(mail_name: str, settings: Settings) -> None:
    assert SIGN_IN.period is not None
    now = timezone.now()
    path = settings.OUTBOX_DIRECTORY / f"{mail_name}.eml"

    written = now - SIGN_IN.period + timedelta(minutes=1)
    os.utime(path, (written.timestamp(), written.timestamp()))
    holders.purge(now=now)
    assert path.exists()

    holders.purge(now=now + timedelta(minutes=2))
    assert not path.exists()
    record = PurgeRecord.objects.get(holder="mindmore.outbox")
    assert record.rows == 1
