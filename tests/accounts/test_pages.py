"""What holds on every page: cookies, the policy's link, no inline code, plain words for errors."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.core.mail import EmailMessage, get_connection
from django.template.loader import render_to_string
from django.test import Client
from pytest_django import Settings

from accounts.models import Project, User
from accounts.services import api_key_create
from mindmore.outbox import mail_list

pytestmark = pytest.mark.django_db

WITHOUT_FORM = ["/", "/nowhere/", "/outbox/", "/accounts/confirm-email/", "/accounts/inactive/"]
WITH_FORM = ["/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"]
SIGNED_IN = [
    "/",
    "/account/",
    "/projects/",
    "/projects/{project}/",
    "/projects/{project}/keys/{key}/revoke/",
    "/accounts/email/",
    "/accounts/password/change/",
    "/accounts/2fa/",
    "/accounts/reauthenticate/",
    "/nowhere/",
]
DATA_BLOCKS = {"application/json"}  # never executed


class Page(HTMLParser):
    """What a page loads, links and says inline."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.inline += [f"{tag} {name}" for name in values if name == "style" or name[:2] == "on"]
        if tag == "style" or (
            tag == "script" and "src" not in values and values.get("type") not in DATA_BLOCKS
        ):
            self.inline.append(tag)
        self.loaded += [values["src"] or ""] if "src" in values else []
        self.loaded += [values.get("href") or ""] if tag == "link" else []
        self.links += [values.get("href") or ""] if tag == "a" else []


def check(html: str) -> None:
    page = Page(html)
    assert page.inline == []
    assert page.links.count("/privacy") == 1
    assert all(re.match(r"/(?!/)", address) for address in page.loaded), page.loaded
    assert html.count("<h1") == 1
    assert html.count("<main") == 1


@pytest.mark.parametrize("address", WITHOUT_FORM)
@pytest.mark.claim("S-16")
def test_anonymous_visitor_gets_no_cookie_without_a_form(client: Client, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code in (200, 404)
    assert not answer.cookies
    check(answer.content.decode())


@pytest.mark.parametrize("address", WITH_FORM)
def test_page_with_a_form_sets_the_csrf_cookie_and_no_other(client: Client, address: str) -> None:
    answer = client.get(address)
    assert set(answer.cookies) == {"csrf"}
    check(answer.content.decode())


@pytest.mark.parametrize("address", SIGNED_IN)
def test_page_behind_signing_in(
    client: Client, alice: User, project: Project, address: str
) -> None:
    client.force_login(alice)
    api_key, _ = api_key_create(project=project, name="server")
    answer = client.get(address.format(project=project.public_id, key=api_key.prefix))
    assert answer.status_code == (404 if "nowhere" in address else 200)
    assert set(answer.cookies) <= {"csrf", "session"}
    check(answer.content.decode())


def test_signing_out_leaves_no_session_cookie(client: Client, alice: User) -> None:
    client.force_login(alice)
    answer = client.post("/accounts/logout/", follow=True)
    assert answer.redirect_chain == [("/", 302)]
    assert client.cookies["session"].value == ""


@pytest.mark.parametrize("code", ["400", "403", "403_csrf", "404", "405", "429", "500"])
def test_error_page_needs_no_request(code: str) -> None:
    check(render_to_string(f"{code}.html"))


@pytest.mark.parametrize("address", ["/", "/dashboard/", "/privacy", "/projects/"])
def test_method_that_an_address_does_not_take_gets_a_page(
    client: Client, alice: User, address: str
) -> None:
    client.force_login(alice)
    answer = client.delete(address)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    check(answer.content.decode())


def test_policy_forbids_inline_code_and_other_hosts(client: Client) -> None:
    policy = client.get("/accounts/login/").headers["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives.pop("default-src") == "'none'"
    assert set(directives.values()) <= {"'self'", "'none'"}


# --- the outbox -----------------------------------------------------------------------------------
@pytest.fixture
def mailed(settings: Settings, tmp_path: Path) -> str:
    """A mail in an outbox of its own; answers its address on the site."""
    settings.OUTBOX_DIRECTORY = tmp_path / "outbox"
    message = EmailMessage(
        "Bestätigen: confirm",
        "Open http://testserver/x?a=1&b=2 now.\n<b>",
        to=["dana@example.org"],
    )
    message.connection = get_connection("mindmore.outbox.EmailBackend")
    message.send()
    return f"/outbox/{mail_list()[0].name}/"


def test_outbox_lists_a_mail(client: Client, mailed: str) -> None:
    page = client.get("/outbox/").content.decode()
    assert f'href="{mailed}"' in page
    assert "Bestätigen: confirm" in page
    assert "dana@example.org" in page


def test_outbox_shows_a_mail_with_links_that_work(client: Client, mailed: str) -> None:
    page = client.get(mailed).content.decode()
    check(page)
    assert 'href="http://testserver/x?a=1&amp;b=2"' in page
    assert "&lt;b&gt;" in page


def test_outbox_keeps_mail_from_other_users_of_the_machine(mailed: str, settings: Settings) -> None:
    directory = settings.OUTBOX_DIRECTORY
    assert directory.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in directory.iterdir())


@pytest.mark.parametrize("name", ["nothing", "..", "1-a"])
def test_mail_that_is_not_there_is_not_found(client: Client, mailed: str, name: str) -> None:
    assert client.get(f"/outbox/{name}/").status_code == 404


def test_production_has_no_outbox(client: Client, mailed: str, settings: Settings) -> None:
    settings.PRODUCTION = True
    assert client.get("/outbox/").status_code == 404
    assert client.get(mailed).status_code == 404
