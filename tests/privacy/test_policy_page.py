"""What visitors read under /privacy."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from django.core.management import call_command
from django.test import Client

from privacy.models import PolicyVersion
from privacy.selectors import policy_current

pytestmark = pytest.mark.django_db


class TextOf(HTMLParser):
    """The text of the elements named, in order; every element by its id."""

    def __init__(self, html: str, *, inside: set[str]) -> None:
        super().__init__()
        self.inside = inside
        self.depth = 0
        self.text = ""
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if identity := named.get("id"):
            self.ids.append(identity)
        if tag == "a" and (target := named.get("href")):
            self.targets.append(target)
        if tag in self.inside:
            self.depth += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            self.depth -= 1

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.text += data


@pytest.fixture
def page(client: Client) -> str:
    call_command("publish_policy", verbosity=0)
    return client.get("/privacy").text


def words_of(text: str) -> list[str]:
    return text.split()


def canonical_words(version: PolicyVersion) -> list[str]:
    """The canonical text without the marks of lists and tables."""
    lines = (
        re.sub(r"^- |^\| | \|$", "", line).replace(" | ", " ")
        for line in version.canonical_text.split("\n")
        if not line.startswith("|---")
    )
    return " ".join(lines).split()


@pytest.mark.claim("S-1")
def test_page_says_the_canonical_text_and_nothing_else(page: str) -> None:
    version = policy_current()
    assert version is not None
    said = words_of(TextOf(page, inside={"h1", "article"}).text)
    assert said == canonical_words(version)


def test_page_of_the_founding_policy_says_its_text(page: str, client: Client) -> None:
    founding = client.get("/privacy/versions/0").text
    version = PolicyVersion.objects.get(number=0)
    assert words_of(TextOf(founding, inside={"h1", "article"}).text) == canonical_words(version)


@pytest.mark.claim("S-60")
def test_date_of_last_revision_is_at_the_top(page: str) -> None:
    version = policy_current()
    assert version is not None
    top = " ".join(words_of(TextOf(page, inside={"body"}).text))[:500]
    assert f"Last revised on {version.published_at:%Y-%m-%d}" in top


def test_page_shows_its_number_and_hash(page: str) -> None:
    version = policy_current()
    assert version is not None
    text = TextOf(page, inside={"header"}).text
    assert f"This is version {version.number}." in text
    assert version.sha256 in text


def test_contents_lead_to_every_section(page: str) -> None:
    read = TextOf(page, inside=set())
    anchors = [target.removeprefix("#") for target in read.targets if target.startswith("#")]
    assert set(anchors) <= set(read.ids)
    assert len(anchors) == 13  # twelve sections, and the link past the navigation


def test_ids_are_unique(page: str) -> None:
    ids = TextOf(page, inside=set()).ids
    assert len(ids) == len(set(ids))


def test_unpublished_policy_is_not_found(client: Client) -> None:
    assert client.get("/privacy").status_code == 404


def test_policy_is_only_read(client: Client) -> None:
    assert client.post("/privacy").status_code == 405
