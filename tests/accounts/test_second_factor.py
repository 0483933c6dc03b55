"""Second factors: enrolment, signing in, and what staff reach without one."""

from __future__ import annotations

import re

import pytest
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.core.management import call_command
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from pytest_django import Settings

from accounts.adapters import SecondFactorAdapter
from accounts.middleware import ENROLLING
from accounts.models import Project, User
from tests.people import PASSWORD, person
from tests.totp import totp_code

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(db: None) -> User:
    user = person("Operator")
    user.is_staff = user.is_superuser = True
    user.save()
    return user


def sign_in(user: User, client: Client | None = None) -> Client:
    client = client or Client()
    client.post("/accounts/login/", {"login": user.email, "password": PASSWORD})
    return client


def enrol_totp(client: Client) -> str:
    """Set an authenticator app up in the browser; answers its secret."""
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    page = client.get("/accounts/2fa/totp/activate/").content.decode()
    found = re.search(r'id="authenticator_secret" value="(\w+)"', page)
    assert found is not None
    code = totp_code(found[1], unix_seconds=int(timezone.now().timestamp()))
    answer = client.post("/accounts/2fa/totp/activate/", {"code": code})
    assert answer.status_code == 302
    return found[1]


def next_code(secret: str) -> str:
    """A code that was not used yet; a clock may be one step ahead."""
    return totp_code(secret, unix_seconds=int(timezone.now().timestamp()) + 30)


def admin_addresses() -> list[str]:
    """Every address of the admin that needs no argument, and the list of every model."""
    fixed = [f"/admin/{name}/" for name in ("password_change", "jsi18n", "autocomplete", "logout")]
    lists = [
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        for model in admin.site._registry
    ]
    return ["/admin/", "/admin/nowhere/", *fixed, *lists]


def names_of(resolver: URLResolver, within: str = "") -> set[str]:
    names: set[str] = set()
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            names.add(f"{within}{pattern.name}")
        else:
            namespace = f"{pattern.namespace}:" if pattern.namespace else ""
            names |= names_of(pattern, within + namespace)
    return names


@pytest.mark.claim("S-43")
def test_staff_with_a_password_alone_reach_nothing_of_the_admin(operator: User) -> None:
    client = sign_in(operator)
    for address in admin_addresses():
        answer = client.get(address)
        assert answer.status_code == 302, address
        assert answer.headers["Location"].startswith("/accounts/2fa/?next="), address


@pytest.mark.claim("S-43")
def test_staff_with_a_password_alone_reach_no_other_page(operator: User, project: Project) -> None:
    client = sign_in(operator)
    for address in (
        "/",
        "/account/",
        "/projects/",
        "/accounts/email/",
        "/accounts/password/change/",
    ):
        assert client.get(address).headers.get("Location", "").startswith("/accounts/2fa/"), address
        assert client.post(address).headers.get("Location") == "/accounts/2fa/", address


@pytest.mark.claim("S-6")
@pytest.mark.parametrize("enrolled", [False, True])
def test_staff_read_the_policy_before_any_second_factor(operator: User, *, enrolled: bool) -> None:
    call_command("publish_policy", verbosity=0)
    client = sign_in(operator)
    if enrolled:
        enrol_totp(sign_in(operator))
    assert client.get("/privacy").status_code == 200
    assert client.get("/privacy/versions/0").status_code == 200
    assert client.get("/account/").status_code == 302


def test_pages_open_for_enrolment_exist() -> None:
    assert names_of(get_resolver()) >= ENROLLING


def test_staff_can_sign_out_without_a_second_factor(operator: User) -> None:
    client = sign_in(operator)
    assert client.post("/accounts/logout/").headers["Location"] == "/"
    assert client.get("/").status_code == 200


@pytest.mark.claim("S-43")
def test_staff_who_enrol_go_on_after_proving_it(operator: User) -> None:
    client = sign_in(operator)
    assert (
        "set up an authenticator app or a passkey" in client.get("/accounts/2fa/").content.decode()
    )
    secret = enrol_totp(client)
    answer = client.get("/admin/")
    assert answer.headers["Location"] == "/accounts/2fa/reauthenticate/?next=%2Fadmin%2F"
    answer = client.post(answer.headers["Location"], {"code": next_code(secret)})
    assert answer.headers["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200


@pytest.mark.claim("S-43")
def test_staff_who_sign_in_with_totp_reach_every_list(operator: User) -> None:
    secret = enrol_totp(sign_in(operator))
    client = sign_in(operator)
    assert client.get("/admin/").status_code == 302
    client.post("/accounts/2fa/authenticate/", {"code": next_code(secret)})
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert client.get(reverse(f"{name}_changelist")).status_code == 200, name


def test_wrong_code_does_not_sign_in(operator: User) -> None:
    secret = enrol_totp(sign_in(operator))
    client = sign_in(operator)
    wrong = f"{(int(next_code(secret)) + 1) % 1_000_000:06}"
    assert client.post("/accounts/2fa/authenticate/", {"code": wrong}).status_code == 200
    assert client.get("/account/").headers["Location"].startswith("/accounts/login/")


def test_code_works_once(operator: User) -> None:
    secret = enrol_totp(sign_in(operator))
    code = next_code(secret)
    sign_in(operator).post("/accounts/2fa/authenticate/", {"code": code})
    client = sign_in(operator)
    assert client.post("/accounts/2fa/authenticate/", {"code": code}).status_code == 200


def test_recovery_code_counts_as_second_factor(operator: User) -> None:
    enrol_totp(sign_in(operator))
    codes = Authenticator.objects.get(type="recovery_codes").wrap().get_unused_codes()
    client = sign_in(operator)
    client.post("/accounts/2fa/authenticate/", {"code": codes[0]})
    assert client.get("/admin/").status_code == 200


def test_password_alone_cannot_add_a_factor_where_there_is_one(operator: User) -> None:
    early = sign_in(operator)
    enrol_totp(sign_in(operator))
    early.post("/accounts/reauthenticate/", {"password": PASSWORD})
    for address in (
        "/accounts/2fa/webauthn/add/",
        "/accounts/2fa/totp/deactivate/",
        "/accounts/2fa/",
    ):
        answer = early.get(address)
        assert answer.headers["Location"].startswith("/accounts/2fa/reauthenticate/"), address


def test_records_of_another_person_do_not_count(operator: User) -> None:
    client = Client()
    client.force_login(operator)
    session = client.session
    session["account_authentication_methods"] = [{"method": "mfa", "type": "totp", "at": 0}]
    session["account_authentication_methods_user"] = "0"
    session.save()
    assert client.get("/admin/").status_code == 302


def test_customers_are_not_asked(alice: User) -> None:
    assert sign_in(alice).get("/account/").status_code == 200


def test_admin_is_closed_to_customers(alice: User) -> None:
    assert sign_in(alice).get("/admin/").status_code in (302, 403)
    assert sign_in(alice).get("/admin/login/").status_code == 403


def test_admin_has_no_sign_in_of_its_own(operator: User) -> None:
    client = Client()
    answer = client.get("/admin/login/")
    assert answer.headers["Location"].startswith("/accounts/login/")
    client.post("/admin/login/", {"username": operator.email, "password": PASSWORD})
    assert "_auth_user_id" not in client.session


def test_secrets_of_second_factors_are_stored_encrypted(operator: User) -> None:
    secret = enrol_totp(sign_in(operator))
    stored = Authenticator.objects.get(type="totp").data["secret"]
    assert secret not in stored
    assert SecondFactorAdapter().decrypt(stored) == secret


def test_secret_of_a_retired_key_still_opens(settings: Settings) -> None:
    closed = SecondFactorAdapter().encrypt("JBSWY3DPEHPK3PXP")
    old = settings.SECRET_KEY
    settings.SECRET_KEY = "another"
    settings.SECRET_KEY_FALLBACKS = [old]
    assert SecondFactorAdapter().decrypt(closed) == "JBSWY3DPEHPK3PXP"


def test_admin_shows_no_secret(operator: User) -> None:
    secret = enrol_totp(sign_in(operator))
    client = sign_in(operator)
    client.post("/accounts/2fa/authenticate/", {"code": next_code(secret)})
    authenticator = Authenticator.objects.get(type="totp")
    page = client.get(f"/admin/mfa/authenticator/{authenticator.pk}/change/").content.decode()
    assert authenticator.data["secret"] not in page
    assert secret not in page
