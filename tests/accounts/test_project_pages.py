"""The pages on which a person makes projects and keys."""

from __future__ import annotations

import re

import pytest
import time_machine
from django.contrib.sessions.models import Session
from django.test import Client

from accounts.models import ApiKey, Membership, Organisation, Project, Role, User
from accounts.selectors import api_key_authenticate
from accounts.services import api_key_create, organisation_create

pytestmark = pytest.mark.django_db


@pytest.fixture
def as_alice(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


def make_key(client: Client, project: Project) -> tuple[str, str]:
    """Make a key in the browser; the page, and the key on it."""
    form = f"/projects/{project.public_id}/keys/"
    answer = client.post(form, {"name": "server"}, follow=True)
    prefix = ApiKey.objects.latest("pk").prefix
    assert answer.redirect_chain == [(f"{form}{prefix}/", 302)]
    page = answer.content.decode()
    found = re.search(r'value="(mm_[^"]+)"', page)
    assert found is not None
    assert answer.headers["Cache-Control"].startswith("max-age=0, no-cache, no-store")
    return page, found[1]


def test_project_is_made_and_listed(as_alice: Client, organisation: Organisation) -> None:
    answer = as_alice.post("/projects/", {"name": "Production"}, follow=True)
    project = organisation.projects.get()
    assert answer.redirect_chain == [(f"/projects/{project.public_id}/", 302)]
    assert re.fullmatch(r"prj_[a-z2-7]{12}", project.public_id)
    assert "Production" in as_alice.get("/projects/").content.decode()


def test_project_goes_to_the_chosen_organisation(
    as_alice: Client, alice: User, organisation: Organisation
) -> None:
    second = organisation_create(owner=alice, name="Second")
    as_alice.post("/projects/", {"name": "There", "organisation": second.pk})
    assert second.projects.get().name == "There"
    assert not organisation.projects.exists()


def test_project_cannot_be_made_where_one_may_only_look(
    as_alice: Client, alice: User, organisation: Organisation, charlie: User
) -> None:
    organisation_create(owner=alice, name="Second")
    theirs = charlie.memberships.get().organisation
    Membership.objects.create(organisation=theirs, user=alice, role=Role.VIEWER)
    answer = as_alice.post("/projects/", {"name": "There", "organisation": theirs.pk})
    assert answer.status_code == 200
    assert not theirs.projects.exists()


def test_shown_key_works_and_is_shown_once(as_alice: Client, project: Project) -> None:
    _, text = make_key(as_alice, project)
    found = api_key_authenticate(key=text)
    assert found is not None
    assert found.project == project
    for address in (f"/projects/{project.public_id}/", "/projects/", "/account/"):
        page = as_alice.get(address).content.decode()
        assert text not in page
        assert text[12:] not in page


def test_reloading_the_page_of_the_key_leads_back_and_makes_none(
    as_alice: Client, project: Project
) -> None:
    _, text = make_key(as_alice, project)
    again = as_alice.get(f"/projects/{project.public_id}/keys/{text[:11]}/", follow=True)
    assert again.redirect_chain == [(f"/projects/{project.public_id}/", 302)]
    assert "is shown only once" in again.content.decode()
    assert text not in again.content.decode()
    assert project.api_keys.count() == 1


def test_key_waits_for_its_page_encrypted_and_ten_minutes_at_most(
    as_alice: Client, project: Project
) -> None:
    with time_machine.travel("2026-05-17T12:00Z", tick=False) as clock:
        as_alice.force_login(project.organisation.memberships.get().user)
        answer = as_alice.post(f"/projects/{project.public_id}/keys/", {"name": "server"})
        held = as_alice.session["api_key_to_show"][1]
        assert "mm_" not in held
        clock.shift(601)
        late = as_alice.get(answer.headers["Location"])
    assert late.headers["Location"] == f"/projects/{project.public_id}/"


def test_asking_for_the_headers_does_not_use_the_one_time_up(
    as_alice: Client, project: Project
) -> None:
    form = f"/projects/{project.public_id}/keys/"
    address = as_alice.post(form, {"name": "server"}).headers["Location"]
    assert as_alice.head(address).status_code == 405
    assert "shown only now" in as_alice.get(address).content.decode()


def test_one_keys_page_does_not_show_another(as_alice: Client, project: Project) -> None:
    other, _ = api_key_create(project=project, name="other")
    form = f"/projects/{project.public_id}/keys/"
    address = as_alice.post(form, {"name": "server"}).headers["Location"]
    assert as_alice.get(f"{form}{other.prefix}/").status_code == 302
    assert "shown only now" in as_alice.get(address).content.decode()


def test_address_of_the_form_leads_to_the_project(as_alice: Client, project: Project) -> None:
    answer = as_alice.get(f"/projects/{project.public_id}/keys/")
    assert answer.headers["Location"] == f"/projects/{project.public_id}/"


def test_shown_key_stays_out_of_the_session(as_alice: Client, project: Project) -> None:
    _, text = make_key(as_alice, project)
    assert all(text[12:] not in repr(s.get_decoded()) for s in Session.objects.all())


def test_page_of_the_key_has_a_ready_curl_line(as_alice: Client, project: Project) -> None:
    page, text = make_key(as_alice, project)
    line = re.search(r'id="curl-line">([^<]+)<', page)
    assert line is not None
    assert "/api/v1/credentials" in line[1]
    assert f"Authorization: Bearer {text}" in line[1]


def test_key_without_a_name_is_not_made(as_alice: Client, project: Project) -> None:
    answer = as_alice.post(f"/projects/{project.public_id}/keys/", {"name": " "})
    assert answer.status_code == 200
    assert ApiKey.objects.count() == 0


def test_revoking_asks_first(as_alice: Client, project: Project) -> None:
    _, text = make_key(as_alice, project)
    address = f"/projects/{project.public_id}/keys/{text[:11]}/revoke/"
    assert "cannot be undone" in as_alice.get(address).content.decode()
    assert api_key_authenticate(key=text) is not None
    as_alice.post(address)
    assert api_key_authenticate(key=text) is None


def test_form_without_the_csrf_token_is_refused(alice: User, project: Project) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    answer = client.post(f"/projects/{project.public_id}/keys/", {"name": "server"})
    assert answer.status_code == 403
    assert "out of date" in answer.content.decode()
    assert ApiKey.objects.count() == 0


def test_name_is_changed_on_the_account_page(as_alice: Client, alice: User) -> None:
    as_alice.post("/account/", {"name": "Alice Changed"})
    alice.refresh_from_db()
    assert alice.name == "Alice Changed"


def test_account_form_changes_nothing_but_the_name(as_alice: Client, alice: User) -> None:
    as_alice.post("/account/", {"name": "Alice", "is_staff": "on", "email": "other@example.org"})
    alice.refresh_from_db()
    assert not alice.is_staff
    assert alice.email == "alice@example.org"
