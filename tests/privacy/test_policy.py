"""The current policy says what the registry and the settings say, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from django.core.exceptions import ImproperlyConfigured

from privacy.cookies import cookie_register
from privacy.policy.claims import claims_load
from privacy.policy.compose import data_said, policy_compose
from privacy.policy.document import Document, document_text
from privacy.policy.operator import NO_PROCESSORS, Operator, operator_load
from privacy.registry import LEGAL_BASES, Category, Purpose, Registry, registry
from privacy.retention.classes import ACCOUNT, BILLING, CONNECTION_LOGS, RETENTION_CLASSES
from tests.privacy.policy_samples import COOKIES, OPERATOR, sample_registry


def compose(of: Registry | None = None, operator: Operator = OPERATOR) -> Document:
    return policy_compose(registry=of or sample_registry(), operator=operator, cookies=COOKIES)


def installed_policy() -> Document:
    return policy_compose(registry=registry, operator=operator_load(), cookies=cookie_register())


def rows(document: Document, claim: str) -> list[list[str]]:
    return [text.split(" | ") for found, text in document.sentences() if found == claim]


def test_every_sentence_has_a_claim() -> None:
    claims = claims_load()
    assert [text for claim, text in installed_policy().sentences() if claim not in claims] == []


def test_one_claim_is_one_sentence() -> None:
    joined = [
        text for _, text in installed_policy().sentences() if re.search(r"[a-z)”][.?!] [A-Z]", text)
    ]
    assert joined == []


def test_policy_has_no_placeholder_left() -> None:
    assert not re.search(r"[\[\]{}]", document_text(installed_policy()))


def test_policy_keeps_the_twelve_sections_of_the_founding_policy() -> None:
    assert [section.heading for section in compose().sections] == [
        "Who We Are",
        "Scope of This Policy",
        "What Data We Collect",
        "How We Use Personal Data",
        "Data Sharing & Disclosure",
        "International Data Transfers",
        "Data Retention",
        "Security Measures",
        "Your Rights",
        "Children",
        "Changes to This Policy",
        "Contact",
    ]


def test_same_installation_gives_the_same_text() -> None:
    assert document_text(installed_policy()) == document_text(installed_policy())


@pytest.mark.claim("S-2")
def test_only_services_of_installed_apps_are_named() -> None:
    both = sample_registry()
    both.register_service("listing creation")
    [[sentence]] = rows(compose(both), "S-2")
    assert sentence.endswith("provides TURN and STUN relay and listing creation services.")
    [[installed]] = rows(installed_policy(), "S-2")
    assert installed.endswith("provides TURN and STUN relay services.")


def test_policy_about_no_service_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="no app registered a service"):
        compose(Registry())


@pytest.mark.claim("S-3")
def test_operator_comes_from_settings() -> None:
    changed = replace(OPERATOR, legal_entity="Other GmbH", legal_address="2 Other Street")
    assert rows(compose(operator=changed), "S-3") == [
        ["Our legal entity is Other GmbH, registered at 2 Other Street."]
    ]


@pytest.mark.claim("S-64", "S-10", "S-11", "S-13")
def test_section_3_names_every_datum_of_the_registry() -> None:
    policy = installed_policy()
    for category, claim in (
        (Category.ACCOUNT, "S-10"),
        (Category.CONNECTION_LOGS, "S-11"),
        (Category.WEBSITE_DEVICE, "S-13"),
    ):
        data = registry.data(category)
        assert [said for _, said, _ in rows(policy, claim)] == ([data_said(data)] if data else [])


def test_data_are_told_apart_even_where_a_comma_is_in_one() -> None:
    assert data_said(["name", "email address"]) == "Name, email address"
    assert data_said(["name", "second factors, and when"]) == "Name; second factors, and when"


def test_category_without_data_has_no_row() -> None:
    assert rows(compose(), "S-13") == []


@pytest.mark.claim("S-71", "S-18", "S-19", "S-20")
def test_section_4_names_every_purpose_of_the_registry() -> None:
    claims = {Purpose.PROVIDE: "S-18", Purpose.SECURITY: "S-19", Purpose.BILLING: "S-20"}
    policy = installed_policy()
    for purpose, claim in claims.items():
        said = rows(policy, claim)
        assert bool(said) == (purpose in registry.purposes())
        for letter in LEGAL_BASES[purpose] if said else ():
            assert f"Art. 6 (1)({letter})" in said[0][0]


def test_purpose_without_a_sentence_is_refused() -> None:
    improving = sample_registry()
    improving.register_place(
        "visits",
        category=Category.WEBSITE_DEVICE,
        purposes=(Purpose.IMPROVE,),
        retention=ACCOUNT,
        personal={"page": "pages visited"},
    )
    with pytest.raises(ImproperlyConfigured, match="no sentence for: improve"):
        compose(improving)


@pytest.mark.claim("S-28")
def test_only_processors_in_use_are_listed() -> None:
    assert rows(compose(), "S-28") == [
        [
            "Hetzner Online GmbH",
            "Cloud hosting and infrastructure services",
            "Germany (Nuremberg, Falkenstein)",
        ]
    ]
    assert rows(compose(), "S-73") == []


@pytest.mark.claim("S-73")
def test_policy_says_so_where_there_is_no_processor() -> None:
    policy = compose(operator=replace(OPERATOR, processors=(NO_PROCESSORS,)))
    assert rows(policy, "S-73") == [["We use no processors at present."]]
    assert rows(policy, "S-28") == rows(policy, "S-25") == []


def test_nothing_is_said_of_processors_nobody_uses() -> None:
    text = document_text(installed_policy())
    assert [name for name in ("Google", "Stripe", "listing", "Analytics") if name in text] == []


def test_section_7_says_the_periods_that_the_engine_keeps() -> None:
    used = sample_registry()
    assert rows(compose(used), "S-34") == [["Connection logs", "30 days"]]
    assert rows(compose(used), BILLING.claim) == []
    assert CONNECTION_LOGS.period is not None
    assert CONNECTION_LOGS.policy_period == f"{CONNECTION_LOGS.period.days} days"


def test_every_period_in_words_is_the_period_in_code() -> None:
    for each in RETENTION_CLASSES:
        if each.period:
            assert each.policy_period == f"{each.period.days} days"


def test_tls_is_promised_only_where_it_is_required() -> None:
    assert rows(compose(), "S-40")
    assert rows(compose(operator=replace(OPERATOR, https=False)), "S-40") == []
