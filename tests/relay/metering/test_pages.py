"""A project's sessions: who sees them, and how much of them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts.models import Membership, Organisation, Project, Role, User
from relay.models import PeerFlow, Session
from relay.selectors import SessionCursor, books, sessions_page
from relay.services.ingest import records_ingest
from tests.people import person
from tests.relay.metering.examples import call

pytestmark = pytest.mark.django_db


def relayed(
    project: Project, *, allocation: int = 1, age_seconds: int = 60, end: bool = True
) -> None:
    now = timezone.now()
    starts_at = (now - timedelta(seconds=age_seconds)).timestamp()
    records = call(project.public_id, allocation=allocation, starts_at=starts_at, end=end)
    records_ingest(lines=records.lines, now=now, source="node-1-x")


def address(project: Project) -> str:
    return f"/projects/{project.public_id}/sessions/"


def page(user: User, project: Project, query: str = "") -> str:
    client = Client()
    client.force_login(user)
    answer = client.get(address(project) + query)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.claim("S-72")
def test_session_is_listed_with_its_peer_and_bytes(alice: User, project: Project) -> None:
    relayed(project)
    text = page(alice, project)
    assert "192.0.2.1:5000" in text
    assert "198.51.100.7:7000" in text
    assert "3.01 kB" in text
    assert 'value="3012"' in text
    assert "16 s" in text
    assert ">live<" not in text


def test_session_that_goes_on_is_marked_live(alice: User, project: Project) -> None:
    relayed(project, end=False)
    assert ">live<" in page(alice, project)


@pytest.mark.parametrize("role", Role.values)
def test_addresses_are_for_those_who_build(
    organisation: Organisation, project: Project, role: str
) -> None:
    relayed(project)
    user = person("Erin")
    Membership.objects.create(organisation=organisation, user=user, role=role)
    text = page(user, project)
    builds = role in (Role.OWNER, Role.ADMIN, Role.DEVELOPER)
    assert ("192.0.2.1" in text) == builds
    assert ("198.51.100.7" in text) == builds
    assert ("192.0.2.0/24" in text) != builds


@pytest.mark.claim("S-72")
def test_strangers_and_visitors_see_nothing(charlie: User, project: Project) -> None:
    relayed(project)
    client = Client()
    assert client.get(address(project)).status_code == 302
    client.force_login(charlie)
    assert client.get(address(project)).status_code == 404


@pytest.mark.claim("S-72")
def test_sessions_of_another_project_are_not_listed(
    alice: User, project: Project, other_project: Project
) -> None:
    relayed(other_project)
    assert "192.0.2.1" not in page(alice, project)


def test_pages_hold_each_session_once(
    alice: User, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "SESSIONS_PER_PAGE", 3)
    for allocation in range(8):
        relayed(project, allocation=allocation, age_seconds=3600 - allocation // 2)
    shown: list[Session] = []
    place = None
    while True:
        found = sessions_page(project=project, behind=place)
        shown += [row.session for row in found.rows]
        if found.older is None:
            break
        place = SessionCursor.parse(str(found.older))
    assert len(shown) == len({session.allocation for session in shown}) == 8
    assert shown == sorted(shown, key=lambda session: session.started_at, reverse=True)
    first = page(alice, project)
    assert "Older" in first
    assert "Newest" in page(
        alice, project, f"?behind={sessions_page(project=project).older}".replace("+", "%2B")
    )


def test_only_some_peers_are_named_and_the_others_counted(alice: User, project: Project) -> None:
    relayed(project)
    session = Session.objects.get()
    PeerFlow.objects.bulk_create(
        PeerFlow(
            node=session.node,
            boot=session.boot,
            allocation=session.allocation,
            session_started_at=session.started_at,
            peer_address="198.51.100.8",
            peer_port=port,
        )
        for port in range(1, 30)
    )
    text = page(alice, project)
    assert text.count("198.51.100.") == books.PEERS_PER_SESSION
    assert "and 26 more" in text


@pytest.mark.parametrize(
    "place",
    ["x", "2026-01-01T00:00:00_b_1", "2026-01-01T00:00:00+00:00_b_x", "_", "a_b_" + "9" * 40],
)
def test_place_that_nobody_gave_is_not_found(alice: User, project: Project, place: str) -> None:
    client = Client()
    client.force_login(alice)
    assert client.get(address(project), {"behind": place}).status_code == 404


def test_client_that_moved_is_shown_where_it_was_first_and_last(
    alice: User, project: Project
) -> None:
    now = timezone.now()
    moves = [(f"203.0.113.{number}", 6000) for number in range(1, 9)]
    records = call(
        project.public_id, starts_at=(now - timedelta(seconds=60)).timestamp(), moves=moves
    )
    records_ingest(lines=records.lines, now=now, source="node-1-x")
    text = page(alice, project)
    shown = re.findall(r"(?:192\.0\.2|203\.0\.113)\.\d+:\d+", text)
    assert shown == ["192.0.2.1:5000", *(f"203.0.113.{number}:6000" for number in (6, 7, 8))]


def test_page_takes_three_queries_however_many_sessions(
    project: Project, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for allocation in range(4):
        relayed(project, allocation=allocation)
    with django_assert_num_queries(3):
        sessions_page(project=project)
