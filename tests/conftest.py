"""Alice owns an organisation with a project, Bob is a member of it, Charlie is a stranger."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import settings

from accounts.models import Membership, Organisation, Project, Role, User
from accounts.services import organisation_create, project_create
from tests.people import person
from tests.skips import program_missing

# marker: program, package
PROGRAMS = {"interop": ("turnutils_uclient", "coturn"), "e2e": ("chromium", "chromium")}


# How long an example takes says how busy the machine is.
settings.register_profile("mindmore", deadline=None)
settings.load_profile("mindmore")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a program that is not here; `tests/install-programs` installs them."""
    for marker, (program, package) in PROGRAMS.items():
        if item.get_closest_marker(marker) and shutil.which(program) is None:
            program_missing(program, package=package)


@pytest.fixture
def alice(db: None) -> User:
    return person("Alice")


@pytest.fixture
def bob(organisation: Organisation) -> User:
    """A developer in Alice's organisation."""
    user = person("Bob")
    Membership.objects.create(organisation=organisation, user=user, role=Role.DEVELOPER)
    return user


@pytest.fixture
def charlie(db: None) -> User:
    """The owner of another organisation."""
    user = person("Charlie")
    organisation_create(owner=user, name="Charlie's")
    return user


@pytest.fixture
def organisation(alice: User) -> Organisation:
    return organisation_create(owner=alice, name="Alice's")


@pytest.fixture
def project(organisation: Organisation) -> Project:
    return project_create(organisation=organisation, name="Production")
