"""Every role at every address of accounts: one table."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.test import Client

from accounts import urls
from accounts.models import ApiKey, Membership, Organisation, Project, Role, User
from accounts.permissions import PERMISSIONS, Permission
from accounts.selectors import organisations_for, project_for, projects_for, user_may
from accounts.services import api_key_create, organisation_create
from tests.people import person

pytestmark = pytest.mark.django_db

WRITERS = [Role.OWNER, Role.ADMIN, Role.DEVELOPER]
READERS = [Role.BILLING, Role.VIEWER]
NO_MEMBER = ["stranger", "anonymous"]

# address name, method: what writers, readers, strangers and anonymous visitors get.
TABLE: dict[tuple[str, str], tuple[int, int, int, int]] = {
    ("signup", "GET"): (302, 302, 302, 200),
    ("signup", "POST"): (302, 302, 302, 200),
    ("profile", "GET"): (200, 200, 200, 302),
    ("profile", "POST"): (302, 302, 302, 302),
    ("projects", "GET"): (200, 200, 200, 302),
    ("projects", "POST"): (302, 403, 302, 302),
    ("project", "GET"): (200, 200, 404, 302),
    ("project", "POST"): (405, 405, 405, 302),
    ("api_key_new", "GET"): (302, 302, 302, 302),
    ("api_key_new", "POST"): (302, 403, 404, 302),
    ("api_key", "GET"): (302, 403, 404, 302),
    ("api_key", "POST"): (405, 405, 405, 302),
    ("api_key_revoke", "GET"): (200, 403, 404, 302),
    ("api_key_revoke", "POST"): (302, 403, 404, 302),
}
ROWS = [
    (name, method, role, expected)
    for (name, method), (writer, reader, stranger, anonymous) in TABLE.items()
    for role, expected in [
        *((role, writer) for role in WRITERS),
        *((role, reader) for role in READERS),
        ("stranger", stranger),
        ("anonymous", anonymous),
    ]
]


@pytest.fixture
def api_key(project: Project) -> ApiKey:
    return api_key_create(project=project, name="server")[0]


@pytest.fixture
def client_as(organisation: Organisation) -> Callable[[str], Client]:
    """A browser of somebody with that role in Alice's organisation."""

    def make(role: str) -> Client:
        client = Client()
        if role != "anonymous":
            user = person(f"somebody-{role}")
            if role == "stranger":
                organisation_create(owner=user, name="Elsewhere")
            else:
                Membership.objects.create(organisation=organisation, user=user, role=role)
            client.force_login(user)
        return client

    return make


def address(name: str, api_key: ApiKey) -> str:
    return {
        "signup": "/accounts/signup/",
        "profile": "/account/",
        "projects": "/projects/",
        "project": f"/projects/{api_key.project.public_id}/",
        "api_key_new": f"/projects/{api_key.project.public_id}/keys/",
        "api_key": f"/projects/{api_key.project.public_id}/keys/{api_key.prefix}/",
        "api_key_revoke": f"/projects/{api_key.project.public_id}/keys/{api_key.prefix}/revoke/",
    }[name]


def test_table_has_every_address_and_method() -> None:
    names = {pattern.name for pattern in urls.urlpatterns}
    assert {name for name, _ in TABLE} == names
    assert set(TABLE) == {(name, method) for name in names for method in ("GET", "POST")}


@pytest.mark.claim("S-42")
@pytest.mark.parametrize(("name", "method", "role", "expected"), ROWS)
def test_role_at_address(
    name: str,
    method: str,
    role: str,
    expected: int,
    api_key: ApiKey,
    client_as: Callable[[str], Client],
) -> None:
    client = client_as(role)
    keys = ApiKey.objects.filter(revoked_at=None).count()
    answer = client.generic(
        method,
        address(name, api_key),
        "name=Name",
        content_type="application/x-www-form-urlencoded",
    )
    assert answer.status_code == expected
    if role == "anonymous" and name != "signup":
        assert answer.headers["Location"].startswith("/accounts/login/?next=")
    changed = ApiKey.objects.filter(revoked_at=None).count() - keys
    succeeded = method == "POST" and role in WRITERS
    assert changed == ({"api_key_new": 1, "api_key_revoke": -1}.get(name, 0) if succeeded else 0)


def test_every_role_is_in_the_table_of_permissions() -> None:
    assert set(PERMISSIONS) == set(Role)
    assert all(Permission.PROJECTS_READ in held for held in PERMISSIONS.values())


@pytest.mark.parametrize("role", list(Role))
def test_selectors_follow_the_table(role: Role, organisation: Organisation) -> None:
    user = person("Somebody")
    Membership.objects.create(organisation=organisation, user=user, role=role)
    for permission in Permission:
        expected = permission in PERMISSIONS[role]
        assert user_may(user=user, organisation=organisation, permission=permission) is expected
        found = organisations_for(user=user, permission=permission)
        assert (organisation in found) is expected


def test_stranger_sees_no_project(project: Project, charlie: User) -> None:
    assert list(projects_for(user=charlie)) == []


def test_member_sees_the_project(project: Project, bob: User) -> None:
    assert project_for(user=bob, public_id=project.public_id) == project


def test_readers_see_no_forms(api_key: ApiKey, client_as: Callable[[str], Client]) -> None:
    for role in READERS:
        client = client_as(role)
        for name in ("projects", "project"):
            page = client.get(address(name, api_key)).content.decode()
            assert 'name="name"' not in page
            assert "Revoke" not in page


@pytest.mark.claim("S-42")
def test_stranger_gets_the_answer_of_a_project_that_is_not_there(
    api_key: ApiKey, client_as: Callable[[str], Client]
) -> None:
    client = client_as("stranger")
    theirs = client.get(address("project", api_key))
    missing = client.get("/projects/prj_aaaaaaaaaaaa/")
    assert theirs.status_code == missing.status_code == 404
    token = re.compile(rb'name="csrfmiddlewaretoken" value="\w+"')  # differs each time
    assert token.sub(b"", theirs.content) == token.sub(b"", missing.content)


@pytest.mark.parametrize("public_id", ["prj_", "x", "prj_AAAAAAAAAAAA", "prj_%00aaaaaaaaaaa"])
def test_malformed_project_address_is_not_found(
    public_id: str, alice: User, client: Client
) -> None:
    client.force_login(alice)
    assert client.get(f"/projects/{public_id}/").status_code == 404


def test_key_of_another_project_is_not_found(
    api_key: ApiKey, alice: User, charlie: User, client: Client
) -> None:
    client.force_login(charlie)
    client.post("/projects/", {"name": "Mine"})
    mine = projects_for(user=charlie).get()
    answer = client.post(f"/projects/{mine.public_id}/keys/{api_key.prefix}/revoke/")
    assert answer.status_code == 404
    api_key.refresh_from_db()
    assert api_key.revoked_at is None
