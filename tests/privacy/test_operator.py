"""Nobody publishes a policy with a placeholder in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from privacy.checks import mail_check, operator_check
from privacy.policy.document import Document, Sentence
from privacy.policy.operator import Operator, operator_load, operator_problems
from privacy.services import policy_publish
from tests.privacy.policy_samples import OPERATOR


def test_stated_operator_has_no_problem() -> None:
    assert operator_problems(OPERATOR) == []


def test_demonstration_operator_has_no_problem() -> None:
    assert operator_problems(operator_load()) == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (replace(OPERATOR, legal_entity=""), "MINDMORE_LEGAL_ENTITY is empty"),
        (replace(OPERATOR, legal_address=" "), "MINDMORE_LEGAL_ADDRESS is empty"),
        (
            replace(OPERATOR, legal_entity="[Name of the legal entity]"),
            "MINDMORE_LEGAL_ENTITY is a placeholder: [Name of the legal entity]",
        ),
        (replace(OPERATOR, dpo_email="dpo"), "MINDMORE_DPO_EMAIL is not an e-mail address"),
        (replace(OPERATOR, processors=()), "MINDMORE_PROCESSORS is empty"),
        (
            replace(OPERATOR, processors=("aws",)),
            "MINDMORE_PROCESSORS: 'aws' is neither one of hetzner, none"
            " nor name | purpose | location",
        ),
        (
            replace(OPERATOR, processors=("none", "hetzner")),
            "MINDMORE_PROCESSORS names processors and `none`",
        ),
    ],
)
def test_what_is_missing_is_named_by_its_variable(changed: Operator, problem: str) -> None:
    assert operator_problems(changed) == [problem]


def test_processor_is_known_or_described() -> None:
    described = replace(OPERATOR, processors=("hetzner", "Post Ltd | Delivery of email | Ireland"))
    assert operator_problems(described) == []
    assert [each.name for each in described.processors_used()] == [
        "Hetzner Online GmbH",
        "Post Ltd",
    ]


def test_mail_through_somebody_unnamed_is_warned_of(settings: Settings) -> None:
    settings.PRODUCTION = True
    settings.EMAIL_HOST = "smtp.post.example"
    settings.PROCESSORS = ["hetzner"]
    [warning] = mail_check()
    assert (warning.id, warning.level) == ("privacy.W001", 30)
    settings.PROCESSORS = ["hetzner", "Post Ltd | Delivery of email | Ireland"]
    assert mail_check() == []
    settings.PROCESSORS = ["none"]
    settings.EMAIL_HOST = "localhost"
    assert mail_check() == []


@pytest.mark.claim("S-3")
def test_placeholder_stops_a_production_start(settings: Settings) -> None:
    settings.PRODUCTION = True
    settings.LEGAL_ENTITY = "[Name]"
    [error] = operator_check()
    assert (error.id, error.level) == ("privacy.E001", 40)
    assert error.msg.startswith("MINDMORE_LEGAL_ENTITY is a placeholder")


def test_development_starts_with_whatever_is_set(settings: Settings) -> None:
    settings.LEGAL_ENTITY = "[Name]"
    assert operator_check() == []


def test_policy_with_a_placeholder_is_never_published() -> None:
    with pytest.raises(ImproperlyConfigured, match="placeholder"):
        policy_publish(
            document=Document(Sentence("Policy"), ()),
            operator=replace(OPERATOR, legal_entity="[Name]"),
            now=timezone.now(),
        )


def test_production_with_a_placeholder_is_not_prepared(settings: Settings) -> None:
    settings.PRODUCTION = True
    settings.LEGAL_ENTITY = "[Name]"
    with pytest.raises(CommandError, match="LEGAL_ENTITY is a placeholder"):
        call_command("prepare")
