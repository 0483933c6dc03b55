"""Signing up: what is asked, what is stored, and what is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from allauth.account.forms import SignupForm as AllauthSignupForm
from django.apps import apps
from django.contrib.sessions.models import Session
from django.core import mail
from django.core.cache import cache
from django.db import IntegrityError
from django.test import Client
from django.utils import timezone
from redis import Redis

from accounts.flows.signup import signup_complete
from accounts.models import Membership, Organisation, Role, User
from tests.people import PASSWORD

pytestmark = pytest.mark.django_db

FORM: Mapping[str, str] = {
    "name": "Dana Marker",
    "email": "dana-marker@example.org",
    "organisation": "Marker Works",
    "password1": "a-password-marker",
    "is_sixteen_or_older": "on",
}


def sign_up(client: Client, **changes: str | None) -> Any:
    data = {name: value for name, value in {**FORM, **changes}.items() if value is not None}
    return client.post("/accounts/signup/", data)


def row_counts() -> dict[str, int]:
    return {
        model._meta.label: model._base_manager.count()
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
    }


def confirmation_link() -> str:
    found = re.search(r"http://\S+/accounts/confirm-email/\S+", str(mail.outbox[-1].body))
    assert found is not None
    return found[0]


@pytest.mark.claim("S-56")
def test_without_the_tick_nothing_is_stored_at_all(client: Client) -> None:
    before = row_counts()
    answer = sign_up(client, is_sixteen_or_older=None)
    assert answer.status_code == 200
    assert "No account was made" in answer.content.decode()
    assert "Tick the box if you are." in answer.content.decode()
    assert row_counts() == before
    assert mail.outbox == []
    assert set(answer.cookies) <= {"csrf"}


@pytest.mark.claim("S-56")
def test_without_the_tick_neither_form_nor_address_reaches_the_cache(client: Client) -> None:
    sign_up(client, is_sixteen_or_older=None)
    prefix = cache.key_prefix
    redis: Redis = cache._cache.get_client()  # type: ignore[attr-defined]
    keys = [key.decode() for key in redis.scan_iter(match=f"{prefix}:*")]
    held = " ".join(keys + [repr(redis.get(key)) for key in keys])
    assert "signup" in held  # the rate limit did count
    assert "127.0.0.1" not in held
    assert "marker" not in held.lower()


def test_signing_up_makes_person_statement_and_organisation(client: Client) -> None:
    began_at = timezone.now()
    answer = sign_up(client)
    assert answer.headers["Location"] == "/accounts/confirm-email/"
    user = User.objects.get(email=FORM["email"])
    assert user.name == FORM["name"]
    assert user.is_sixteen_or_older
    assert user.age_stated_at is not None
    assert began_at <= user.age_stated_at <= timezone.now()
    membership = user.memberships.get()
    assert membership.role == Role.OWNER
    assert membership.organisation.name == FORM["organisation"]


def test_organisation_takes_the_persons_name_where_none_is_given(client: Client) -> None:
    sign_up(client, organisation="")
    assert Organisation.objects.get().name == FORM["name"]


def test_birth_date_is_neither_asked_nor_stored(client: Client) -> None:
    page = client.get("/accounts/signup/").content.decode()
    assert not re.search(r"birth|type=\"date\"", page)
    assert not [f.name for f in User._meta.get_fields() if "birth" in f.name]


def test_failure_half_way_leaves_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    before = row_counts()

    def fail_after_storing(*, user: User, name: str, organisation_name: str) -> None:
        signup_complete(user=user, name=name, organisation_name=organisation_name)
        raise RuntimeError("the machine stops here")

    monkeypatch.setattr("accounts.forms.signup_complete", fail_after_storing)
    with pytest.raises(RuntimeError):
        sign_up(client)
    assert row_counts() == before


def test_address_must_be_confirmed_before_signing_in(client: Client) -> None:
    sign_up(client)
    answer = client.get("/account/")
    assert answer.status_code == 302
    stranger = Client()
    credentials = {"login": FORM["email"], "password": FORM["password1"]}
    answer = stranger.post("/accounts/login/", credentials)
    assert answer.headers["Location"] == "/accounts/confirm-email/"
    assert stranger.get("/account/").status_code == 302


def test_looking_at_the_link_confirms_nothing(client: Client) -> None:
    sign_up(client)
    client.get(confirmation_link())
    assert not User.objects.get().emailaddress_set.get().verified  # type: ignore[attr-defined]


def test_confirming_in_the_same_browser_signs_in(client: Client) -> None:
    sign_up(client)
    answer = client.post(confirmation_link())
    assert answer.headers["Location"] == "/dashboard/"
    assert client.get("/account/").status_code == 200


def test_confirming_in_another_browser_does_not_sign_in(client: Client) -> None:
    sign_up(client)
    other = Client()
    other.post(confirmation_link())
    assert other.get("/account/").status_code == 302
    assert User.objects.get().emailaddress_set.get().verified  # type: ignore[attr-defined]


def test_taken_address_gets_the_same_answer_and_a_mail(client: Client, alice: User) -> None:
    fresh = sign_up(Client())
    before = User.objects.count(), Organisation.objects.count(), Membership.objects.count()
    taken = sign_up(client, email=alice.email.upper())
    assert taken.headers["Location"] == fresh.headers["Location"]
    assert mail.outbox[-1].to == [alice.email]
    assert "already has an account" in mail.outbox[-1].body
    assert before == (
        User.objects.count(),
        Organisation.objects.count(),
        Membership.objects.count(),
    )


def test_sign_up_says_the_same_whether_or_not_a_mail_went_out(client: Client) -> None:
    first, soon_after = Client(), Client()
    for browser in (first, soon_after):
        sign_up(browser)
    assert len(mail.outbox) == 1
    page, other = (b.get("/accounts/confirm-email/").content for b in (first, soon_after))
    assert page == other


def test_too_many_failed_sign_ins_are_told_how_long_to_wait(client: Client, alice: User) -> None:
    form = {"login": alice.email, "password": "wrong"}
    pages = [client.post("/accounts/login/", form).content.decode() for _ in range(6)]
    assert "Wait five minutes" in pages[-1]


@pytest.mark.parametrize(("remember", "days"), [("", 0), ("on", 14)])
def test_signing_in_lasts_as_long_as_the_policy_says(
    client: Client, alice: User, remember: str, days: int
) -> None:
    form = {"login": alice.email, "password": PASSWORD, "remember": remember}
    cookie = client.post("/accounts/login/", form).cookies["session"]
    assert (cookie["max-age"] or 0) == days * 24 * 3600


def test_customer_is_told_that_the_admin_is_not_for_them(client: Client, alice: User) -> None:
    client.force_login(alice)
    answer = client.get("/admin/", follow=True)
    assert answer.status_code == 403
    assert "not for this account" in answer.content.decode()


def test_address_taken_meanwhile_gets_the_same_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_the_race(form: object, request: object) -> None:
        raise IntegrityError("duplicate key value violates unique constraint")

    monkeypatch.setattr(AllauthSignupForm, "save", lose_the_race)
    answer = sign_up(client)
    assert answer.headers["Location"] == "/accounts/confirm-email/"
    assert User.objects.count() == 0


@pytest.mark.parametrize("password", ["short", "password123", "1234567890123", "dana-marker"])
def test_weak_password_is_refused(client: Client, password: str) -> None:
    assert sign_up(client, password1=password).status_code == 200
    assert User.objects.count() == 0


def test_sessions_hold_neither_address_nor_browser(client: Client) -> None:
    client.defaults["HTTP_USER_AGENT"] = "MarkerBrowser/1.0"
    client.defaults["REMOTE_ADDR"] = "203.0.113.77"
    sign_up(client)
    client.post(confirmation_link())
    for session in Session.objects.all():
        held = repr(session.get_decoded())
        assert "203.0.113.77" not in held
        assert "MarkerBrowser" not in held
    assert Session.objects.exists()


def test_mail_tells_neither_address_nor_browser(client: Client) -> None:
    client.defaults["HTTP_USER_AGENT"] = "MarkerBrowser/1.0"
    client.defaults["REMOTE_ADDR"] = "203.0.113.77"
    sign_up(client)
    client.post(confirmation_link())
    client.post(
        "/accounts/password/change/",
        {
            "oldpassword": FORM["password1"],
            "password1": "another-fine-password",
            "password2": "another-fine-password",
        },
    )
    assert mail.outbox[-1].subject == "Your password was changed"
    for message in mail.outbox:
        assert "203.0.113.77" not in message.body
        assert "MarkerBrowser" not in message.body


def test_rate_limit_ends_a_flood(client: Client) -> None:
    answers = [sign_up(client, is_sixteen_or_older=None).status_code for _ in range(21)]
    assert answers[:20] == [200] * 20
    assert answers[20] == 429


@pytest.fixture
def mail_server_away(settings: Any) -> Any:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    return settings


@pytest.mark.usefixtures("mail_server_away")
def test_mail_that_cannot_be_sent_stores_nothing(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    before = row_counts()
    answer = sign_up(client)
    assert answer.status_code == 503
    assert "could not be sent just now" in answer.content.decode()
    assert row_counts() == before
    assert dict(client.session.items()) == {}
    [message] = [each.getMessage() for each in caplog.records if "accounts" in each.name]
    assert message.startswith("cannot send mail to 127.0.0.1:1 (ConnectionRefusedError)")
    assert "marker" not in caplog.text


def test_sign_up_works_again_once_mail_goes_out(client: Client, mail_server_away: Any) -> None:
    assert sign_up(client).status_code == 503
    mail_server_away.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert sign_up(client).status_code == 302
    assert len(mail.outbox) == 1
    assert confirmation_link()


@pytest.mark.usefixtures("mail_server_away")
def test_taken_address_gets_the_same_answer_without_mail(client: Client, alice: User) -> None:
    fresh, taken = sign_up(client), sign_up(client, email=alice.email)
    assert taken.status_code == fresh.status_code
    assert "could not be sent just now" in taken.content.decode()


@pytest.mark.usefixtures("mail_server_away")
def test_other_page_whose_mail_fails_asks_to_try_again(alice: User) -> None:
    client = Client(raise_request_exception=False)
    answer = client.post("/accounts/password/reset/", {"email": alice.email})
    assert answer.status_code == 503
    assert "The mail could not be sent just now" in answer.content.decode()
