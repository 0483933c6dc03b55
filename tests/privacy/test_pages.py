"""What every page tells a visitor's browser, for all addresses that need no argument."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as installed
from django.contrib import admin
from django.core.management import call_command
from django.test import Client
from django.urls import URLResolver, get_resolver, reverse
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Project, User
from accounts.services import api_key_create
from billing.models import Invoice, PriceBookVersion
from billing.services import invoices_draft
from relay.services.ingest import records_ingest
from relay.services.usage import usage_roll_up
from tests.relay.metering.examples import call

Response = Any  # of the test client, whose type has no name
POLICY_PATH = "/privacy"
# Elements and the attributes with which they make a browser fetch something at once.
FETCHING = {
    ("img", "src"),
    ("img", "srcset"),
    ("script", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "src"),
    ("video", "poster"),
    ("audio", "src"),
    ("embed", "src"),
    ("object", "data"),
    ("input", "src"),
    ("use", "href"),
    ("image", "href"),
    ("body", "background"),
    ("form", "action"),
    ("button", "formaction"),
}


class Page(HTMLParser):
    """What matters here of one page of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.forms = 0
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (tag, name) in FETCHING and value:
                self.fetched.append(value)
            if name == "style" or name.startswith("on"):
                self.inline.append(f"<{tag} {name}>")
            if tag == "a" and name == "href" and value:
                self.links.append(value)
        self.forms += tag == "form"
        named = dict(attrs)
        data_block = named.get("type") == "application/json"
        if tag == "style" or (tag == "script" and "src" not in named and not data_block):
            self.inline.append(f"<{tag}>")


def paths_without_arguments() -> list[str]:
    return sorted(set(_paths(get_resolver(), "/")))


def _paths(resolver: URLResolver, prefix: str) -> Iterator[str]:
    for entry in resolver.url_patterns:
        path = prefix + _literal(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _paths(entry, path)
        elif not re.search(r"[<(\[\\?*+]", path):
            yield path


def _literal(pattern: object) -> str:
    return str(pattern).removeprefix("^").removesuffix("$").removesuffix(r"\Z")


@pytest.fixture
def visitor(db: None) -> Client:
    """Somebody who is not signed in, while a policy is in force."""
    call_command("publish_policy", verbosity=0)
    return Client()


@pytest.fixture
def customer(visitor: Client, alice: User) -> Client:
    """The owner of an organisation, signed in."""
    visitor.force_login(alice)
    return visitor


@pytest.fixture
def operator(visitor: Client) -> Client:
    """Staff, in a session that has used a second factor."""
    user = User.objects.create_superuser(email="root@example.org", password="x")
    visitor.force_login(user)
    session = visitor.session
    session["account_authentication_methods"] = [{"method": "mfa", "type": "totp", "at": 0}]
    session["account_authentication_methods_user"] = str(user.pk)
    session.save()
    return visitor


@pytest.fixture
def objects(visitor: Client, project: Project) -> None:
    """A project with a key, a session, its usage, and the invoice for it."""
    api_key_create(project=project, name="Server")
    now = timezone.now()
    records = call(project.public_id, starts_at=now.timestamp() - 60)
    records_ingest(lines=[*records.lines, b"nonsense"], now=now, source="node-1-x")
    PriceBookVersion.objects.get_or_create(
        valid_from=datetime(2000, 1, 1, tzinfo=UTC), defaults={"price_per_gb": Decimal("0.05")}
    )
    usage_roll_up()
    invoices_draft(now=now)


def pages(visitor: Client) -> Iterator[tuple[str, Response]]:
    """Every address with what an anonymous GET answers, on a fresh visit each."""
    for path in paths_without_arguments():
        visitor.cookies.clear()
        yield path, visitor.get(path)


def html_pages(visitor: Client) -> Iterator[tuple[str, Response, Page]]:
    for path, response in pages(visitor):
        if response.headers.get("Content-Type", "").startswith("text/html") and response.content:
            yield path, response, Page(response.text)


def links_by_path(client: Client, more_paths: list[str]) -> dict[str, int]:
    """How often each page links the policy, as somebody who is signed in sees it."""
    answers = {path: client.get(path) for path in [*paths_without_arguments(), *more_paths]}
    return {
        path: Page(answer.text).links.count(POLICY_PATH)
        for path, answer in answers.items()
        if answer.status_code == 200 and answer["Content-Type"].startswith("text/html")
    }


def test_crawl_reaches_the_pages_everybody_sees(visitor: Client) -> None:
    reached = {path for path, response, _ in html_pages(visitor) if response.status_code == 200}
    assert {"/", POLICY_PATH, "/accounts/login/", "/accounts/signup/"} <= reached


@pytest.mark.claim("S-6")
def test_every_page_links_the_policy_once(visitor: Client) -> None:
    links = {path: page.links.count(POLICY_PATH) for path, _, page in html_pages(visitor)}
    assert {path for path, count in links.items() if count != 1} == set()


@pytest.mark.claim("S-6")
@pytest.mark.usefixtures("objects")
def test_every_page_of_a_customer_links_the_policy_once(customer: Client, project: Project) -> None:
    own = [
        f"/projects/{project.public_id}/",
        f"/projects/{project.public_id}/sessions/",
        f"/billing/{Invoice.objects.get().month:%Y-%m}/",
    ]
    links = links_by_path(customer, own)
    assert {*own, "/dashboard/", "/projects/", "/billing/", "/account/"} <= links.keys()
    assert {path for path, count in links.items() if count != 1} == set()


@pytest.mark.claim("S-6")
@pytest.mark.usefixtures("objects")
def test_every_page_of_an_operator_links_the_policy_once(operator: Client) -> None:
    forms = [
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[found.pk])
        for model in admin.site._registry
        if (found := model._default_manager.first())
    ]
    links = links_by_path(operator, forms)
    assert {*forms, "/admin/", "/admin/accounts/user/"} <= links.keys()
    assert len(forms) >= 8
    assert {path for path, count in links.items() if count != 1} == set()


@pytest.mark.claim("S-69")
def test_anonymous_visitor_gets_no_cookie_without_a_form(visitor: Client) -> None:
    set_without_form = {
        path: list(response.cookies)
        for path, response, page in html_pages(visitor)
        if response.cookies and not page.forms
    }
    assert set_without_form == {}
    assert not visitor.get("/").cookies


def test_form_sets_no_cookie_but_the_registered_ones(visitor: Client) -> None:
    names = {name for _, response in pages(visitor) for name in response.cookies}
    assert names <= {installed.CSRF_COOKIE_NAME, installed.SESSION_COOKIE_NAME}


@pytest.mark.claim("S-70")
def test_page_loads_nothing_from_another_host(visitor: Client) -> None:
    foreign = {
        path: [address for address in page.fetched if urlsplit(address).netloc]
        for path, _, page in html_pages(visitor)
    }
    assert {path: found for path, found in foreign.items() if found} == {}


@pytest.mark.claim("S-70")
def test_stylesheet_loads_nothing_from_another_host() -> None:
    sheets = [
        sheet for directory in installed.STATICFILES_DIRS for sheet in directory.rglob("*.css")
    ]
    assert sheets
    for sheet in sheets:
        text = sheet.read_text()
        addresses = re.findall(r"url\(\s*['\"]?([^'\")]+)", text)
        assert [address for address in addresses if urlsplit(address).netloc] == []
        assert "@import" not in text


def test_page_needs_no_inline_style_or_script(visitor: Client) -> None:
    inline = {path: page.inline for path, _, page in html_pages(visitor) if page.inline}
    assert inline == {}


def test_every_answer_carries_the_strict_headers(visitor: Client) -> None:
    for path, response in pages(visitor):
        policy = response.headers.get("Content-Security-Policy", "")
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert "http:" not in policy and "https:" not in policy, path
        assert response.headers["X-Content-Type-Options"] == "nosniff", path
        assert response.headers["Referrer-Policy"] == "same-origin", path
        assert response.headers["X-Frame-Options"] == "DENY", path
        assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin", path


@pytest.mark.claim("S-40")
def test_plain_http_is_sent_to_https(visitor: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_HSTS_SECONDS = 31_536_000
    visitor.handler.load_middleware()
    response = visitor.get(POLICY_PATH)
    assert (response.status_code, response["Location"]) == (301, f"https://testserver{POLICY_PATH}")
    secure = visitor.get(POLICY_PATH, secure=True)
    assert secure["Strict-Transport-Security"].startswith("max-age=31536000")
