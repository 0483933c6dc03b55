"""The registry: what is not declared is found, and what is declared twice or wrongly is refused."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured

from privacy.registry import Category, PersonalField, Purpose, Registry, TechnicalField
from privacy.retention.classes import ACCOUNT, SIGN_IN


def session_registry(**personal: str) -> Registry:
    registry = Registry()
    registry.register(
        "sessions.Session",
        category=Category.ACCOUNT,
        purposes=(Purpose.PROVIDE,),
        retention=SIGN_IN,
        personal=personal,
        technical={"expire_date": "end of the session"},
    )
    return registry


def test_unclassified_field_is_found() -> None:
    registry = session_registry(session_key="cookies")
    [problem] = registry.problems([Session])
    assert problem.startswith("sessions.Session.session_data is not classified")


def test_model_nobody_declared_is_found_with_every_field() -> None:
    problems = Registry().problems([Group])
    assert [problem.split(" ")[0] for problem in problems] == ["auth.Group.id", "auth.Group.name"]


def test_many_to_many_table_is_a_model_like_any_other() -> None:
    through = Group.permissions.through
    assert Registry().problems([through])


def test_fully_declared_model_has_no_problem() -> None:
    registry = session_registry(session_key="cookies", session_data="cookies")
    assert registry.problems([Session]) == []
    assert registry.field("sessions.Session", "session_key") == PersonalField(
        "cookies", Category.ACCOUNT, (Purpose.PROVIDE,), SIGN_IN
    )
    assert registry.field("sessions.Session", "expire_date") == TechnicalField("end of the session")


def test_declaration_of_a_missing_field_is_found() -> None:
    registry = session_registry(session_key="cookies", session_data="cookies", colour="colour")
    [problem] = registry.problems([Session])
    assert (
        problem == "sessions.Session.colour is classified, but sessions.Session has no such field"
    )


def test_declaration_of_a_missing_model_is_found() -> None:
    registry = Registry()
    registry.register_impersonal("auth.Permission", "auth.Nobody", because="set by the code")
    assert registry.problems([Permission]) == [
        "auth.Nobody is classified, but no such model is installed"
    ]


def test_field_declared_twice_is_refused() -> None:
    registry = session_registry(session_key="cookies")
    with pytest.raises(ImproperlyConfigured, match="session_key declared twice"):
        registry.register_technical("sessions.Session", {"session_key": "row key"})


def test_impersonal_model_takes_no_further_fields() -> None:
    registry = Registry()
    registry.register_impersonal("auth.Group", because="set by the operator")
    with pytest.raises(ImproperlyConfigured, match="declared twice"):
        registry.register_technical("auth.Group", {"id": "row key"})


def test_reason_must_be_stated() -> None:
    with pytest.raises(ImproperlyConfigured, match="say in words"):
        Registry().register_impersonal("auth.Group", because=" ")


def test_purpose_that_section_3_does_not_name_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="not improve"):
        Registry().register(
            "relay.Session",
            category=Category.CONNECTION_LOGS,
            purposes=(Purpose.IMPROVE,),
            retention=ACCOUNT,
            personal={"client_address": "client & peer IP addresses and ports"},
        )


def test_data_keep_the_order_of_the_founding_policy() -> None:
    registry = Registry()
    registry.register(
        "accounts.User",
        category=Category.ACCOUNT,
        purposes=(Purpose.PROVIDE,),
        retention=ACCOUNT,
        personal={"password": "password (as a hash)", "email": "email address", "name": "name"},
    )
    registry.register_place(
        "cache: attempts",
        category=Category.ACCOUNT,
        purposes=(Purpose.SECURITY,),
        retention=SIGN_IN,
        personal={"key": "IP address of sign-in attempts"},
    )
    assert registry.data(Category.ACCOUNT) == [
        "name",
        "email address",
        "IP address of sign-in attempts",
        "password (as a hash)",
    ]
    assert registry.data(Category.SUPPORT) == []
    assert registry.purposes() == [Purpose.PROVIDE, Purpose.SECURITY]
    assert registry.retention_classes() == {ACCOUNT, SIGN_IN}
