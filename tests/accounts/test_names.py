"""Names that people choose can be read, and leave the page around them alone."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from accounts.models import ApiKey, Organisation, Project, User
from accounts.names import name_validate
from tests.accounts.test_signup import sign_up

REFUSED = {
    "a\nb": "control characters",
    "a\tb": "control characters",
    "a\x1bb": "control characters",
    "a\u2028b": "control characters",
    "gpj.\u202eexe": "direction of writing",
    "\u2067abc": "direction of writing",
    "\u200b": "can be seen",
    "\u200d\ufeff \u00a0": "can be seen",
    "\u3164": "can be seen",
}


@pytest.mark.parametrize(("name", "words"), REFUSED.items())
def test_name_that_cannot_be_read_is_refused_in_words(name: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        name_validate(name)


@pytest.mark.parametrize(
    "name", ["Zürich", "مشروع", "می‌خواهم", "क्षि", "👩‍👩‍👧", "O'Brien & <b>", "1"]
)
def test_name_of_any_script_is_taken(name: str) -> None:
    name_validate(name)


@pytest.mark.django_db
def test_every_form_with_a_name_asks(client: Client, alice: User, project: Project) -> None:
    hidden = {"name": "a\u202eb"}
    assert "direction of writing" in sign_up(Client(), **hidden).content.decode()
    company = sign_up(Client(), organisation="a\u202eb")
    assert "direction of writing" in company.content.decode()
    before = Organisation.objects.count(), Project.objects.count()
    client.force_login(alice)
    for address in ("/account/", "/projects/", f"/projects/{project.public_id}/keys/"):
        answer = client.post(address, hidden)
        assert "direction of writing" in answer.content.decode(), address
    assert (Organisation.objects.count(), Project.objects.count()) == before
    assert not ApiKey.objects.exists()
