"""Versions: published once, kept for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client

from privacy.models import PolicyVersion
from privacy.policy.compose import policy_compose
from privacy.policy.document import text_hash
from privacy.policy.operator import Operator
from privacy.selectors import policy_current
from privacy.services import FOUNDING_PATH, policy_publish
from tests.privacy.policy_samples import COOKIES, OPERATOR, sample_registry

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def publish(operator: Operator = OPERATOR, now: datetime = NOW) -> PolicyVersion | None:
    document = policy_compose(registry=sample_registry(), operator=operator, cookies=COOKIES)
    return policy_publish(document=document, operator=operator, now=now)


def test_first_version_follows_the_founding_policy() -> None:
    version = publish()
    assert version is not None
    assert (version.number, version.published_at) == (1, NOW)
    founding = PolicyVersion.objects.get(number=0)
    assert founding.canonical_text.encode() == FOUNDING_PATH.read_bytes()
    assert policy_current() == version


def test_founding_policy_alone_is_not_in_force() -> None:
    publish()
    assert policy_current() != PolicyVersion.objects.get(number=0)


def test_version_is_known_by_the_hash_of_its_text() -> None:
    version = publish()
    assert version is not None
    assert version.sha256 == text_hash(version.canonical_text)


def test_unchanged_policy_is_not_published_again() -> None:
    publish()
    assert publish(now=NOW + timedelta(days=1)) is None
    assert PolicyVersion.objects.count() == 2


def test_changed_policy_becomes_the_next_version() -> None:
    publish()
    version = publish(replace(OPERATOR, dpo_email="other@mindmore.example"), NOW + timedelta(1))
    assert version is not None
    assert version.number == 2
    assert policy_current() == version


def test_going_back_to_earlier_words_is_a_version_too() -> None:
    first = publish()
    publish(replace(OPERATOR, dpo_email="other@mindmore.example"))
    third = publish()
    assert first is not None and third is not None
    assert (third.number, third.sha256) == (3, first.sha256)


@pytest.mark.claim("S-58")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE privacy_policyversion SET canonical_text = '' WHERE number = 1",
        "UPDATE privacy_policyversion SET published_at = now() WHERE number = 1",
        "DELETE FROM privacy_policyversion WHERE number = 0",
    ],
)
def test_published_version_cannot_be_changed_or_deleted(statement: str) -> None:
    publish()
    with (
        pytest.raises(IntegrityError, match="it cannot be changed or deleted"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)


@pytest.mark.claim("S-58")
def test_earlier_version_stays_on_its_page(client: Client) -> None:
    publish()
    publish(replace(OPERATOR, dpo_email="other@mindmore.example"))
    earlier = client.get("/privacy/versions/1")
    assert OPERATOR.dpo_email in earlier.text
    assert "no longer in force" in earlier.text
    assert "AI-powered listing creation" in client.get("/privacy/versions/0").text
    assert client.get("/privacy/versions/3").status_code == 404


def test_command_publishes_once() -> None:
    outputs = []
    for _ in range(2):
        output = StringIO()
        call_command("publish_policy", stdout=output)
        outputs.append(output.getvalue())
    assert outputs[0].startswith("published version 1, SHA-256 ")
    assert outputs[1] == "the current version says the same: nothing to publish\n"
