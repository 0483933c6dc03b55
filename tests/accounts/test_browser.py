"""Accounts as a person with a browser meets them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from accounts.models import User
from accounts.selectors import api_key_authenticate
from accounts.services import api_key_create, organisation_create, project_create
from tests.browser import Visit, visit
from tests.people import PASSWORD, person

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def site(live_server: LiveServer, settings: Settings, tmp_path: Path) -> str:
    """The service under a host name, with an outbox of its own."""
    settings.OUTBOX_DIRECTORY = tmp_path / "outbox"
    settings.EMAIL_BACKEND = "mindmore.outbox.EmailBackend"
    return live_server.url.replace("127.0.0.1", "localhost")


def sign_up(visiting: Visit, *, tick: bool = True) -> None:
    page = visiting.page
    visiting.open("/accounts/signup/")
    page.get_by_label("Your name").fill("Dana")
    page.get_by_label("E-mail address").fill("dana@example.org")
    page.get_by_label("Company or organisation").fill("Dana's Calls")
    page.get_by_label("Password").fill(PASSWORD)
    if tick:
        page.get_by_label("I am 16 or older").check()
    page.get_by_role("button", name="Sign up").click()


def sign_in(visiting: Visit, user: User) -> None:
    page = visiting.page
    visiting.open("/accounts/login/")
    page.get_by_label("E-mail address").fill(user.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(lambda address: "/login/" not in address)


def add_passkey(visiting: Visit) -> None:
    page = visiting.page
    visiting.open("/accounts/2fa/webauthn/add/")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(lambda address: "/webauthn/add/" not in address)


@pytest.mark.parametrize("javascript", [True, False])
def test_from_sign_up_to_a_key(site: str, javascript: bool) -> None:
    with visit(site, javascript=javascript, width=360) as dana:
        page = dana.page
        dana.open("/")
        assert dana.cookies() == set()
        sign_up(dana)
        dana.open("/outbox/")
        page.get_by_role("link", name="Confirm your e-mail address").click()
        page.locator(".mail a").first.click()
        page.get_by_role("button", name="Yes, confirm").click()
        dana.open("/projects/")
        page.get_by_label("Name of the new project").fill("Production")
        page.get_by_role("button", name="Make project").click()
        page.get_by_label("Name of the new key").fill("server")
        page.get_by_role("button", name="Make key").click()
        text = page.get_by_label("API key", exact=True).input_value()
        assert text in page.locator("#curl-line").inner_text()
        assert dana.cookies() == {"session", "csrf"}
        page.get_by_role("button", name="Sign out").click()
        assert "session" not in dana.cookies()
    api_key = api_key_authenticate(key=text)
    assert api_key is not None
    assert api_key.project.organisation.name == "Dana's Calls"


def test_browser_itself_asks_for_the_tick(site: str) -> None:
    with visit(site) as dana:
        sign_up(dana, tick=False)
        assert dana.page.url.endswith("/accounts/signup/")
    assert not User.objects.exists()


@pytest.mark.claim("S-43")
def test_passkey_alone_signs_staff_in_and_opens_the_admin(site: str) -> None:
    operator = person("Operator")
    operator.is_staff = operator.is_superuser = True
    operator.save()
    with visit(site) as staff:
        page = staff.page
        staff.add_passkey_device()
        sign_in(staff, operator)
        staff.open("/account/")
        assert page.url.startswith(f"{site}/accounts/2fa/?next=")
        add_passkey(staff)
        staff.open("/admin/")
        page.get_by_role("button", name="Use a passkey").click()
        page.wait_for_url(f"{site}/admin/")
        assert page.get_by_role("heading", name="Site administration").is_visible()
        staff.open("/")
        page.get_by_role("button", name="Sign out").click()
        staff.open("/accounts/login/?next=/admin/")
        page.get_by_role("button", name="Sign in with a passkey").click()
        page.wait_for_url(f"{site}/admin/")
        staff.open("/admin/accounts/user/")
        assert page.get_by_text("operator@example.org").first.is_visible()


def test_passkey_is_a_second_factor_after_the_password(site: str) -> None:
    alice = person("Alice")
    with visit(site) as visiting:
        page = visiting.page
        visiting.add_passkey_device()
        sign_in(visiting, alice)
        add_passkey(visiting)
        page.get_by_role("button", name="Sign out").click()
        sign_in(visiting, alice)
        assert page.url.endswith("/accounts/2fa/authenticate/")
        page.get_by_role("button", name="Use a passkey").click()
        page.wait_for_url(lambda address: "/authenticate/" not in address)
        visiting.open("/account/")
        assert page.get_by_role("heading", name="Account", exact=True).is_visible()


def test_passkey_trouble_is_said_in_words(site: str) -> None:
    alice = person("Alice")
    with visit(site.replace("localhost", "127.0.0.1")) as visiting:
        sign_in(visiting, alice)
        visiting.open("/accounts/2fa/webauthn/add/")
        visiting.page.get_by_label("Password", exact=True).fill(PASSWORD)
        visiting.page.get_by_role("button", name="Continue").click()
        visiting.page.get_by_role("button", name="Continue").click()
        assert f"open {site}/" in visiting.page.get_by_role("alert").inner_text()


def test_pages_fit_a_narrow_screen(site: str) -> None:
    alice = person("Alice")
    with visit(site, width=360) as visiting:
        sign_in(visiting, alice)
        for path in (
            "/",
            "/account/",
            "/projects/",
            "/accounts/email/",
            "/accounts/2fa/",
        ):
            visiting.open(path)
            width = visiting.page.evaluate("document.documentElement.scrollWidth")
            assert width <= 360, path


@pytest.mark.parametrize("width", [360, 1280])
def test_long_names_do_not_widen_a_page(site: str, width: int) -> None:
    name = "W" * 100
    alice = person("Alice")
    organisation = organisation_create(owner=alice, name=name)
    project = project_create(organisation=organisation, name=name)
    api_key, _ = api_key_create(project=project, name=name)
    address = f"/projects/{project.public_id}/"
    with visit(site, width=width) as visiting:
        sign_in(visiting, alice)
        for path in (
            "/account/",
            "/dashboard/",
            "/projects/",
            address,
            f"{address}keys/{api_key.prefix}/",
            f"{address}keys/{api_key.prefix}/revoke/",
            f"{address}sessions/",
        ):
            visiting.open(path)
            found = visiting.page.evaluate("document.documentElement.scrollWidth")
            assert found <= width, path
