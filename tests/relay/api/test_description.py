"""The OpenAPI document, and that every answer to whatever request is one that it describes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from relay.core.credentials import username_parse
from tests.relay.api.client import Api

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "ttl": st.integers(-100, 3_000_000) | JSON_VALUES,
        "label": st.text(st.characters(max_codepoint=130), max_size=70) | JSON_VALUES,
        "region": JSON_VALUES,
        "userhash": st.booleans() | JSON_VALUES,
    },
)
EVERY_EXAMPLE = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_document_is_openapi_3_1(api: Api) -> None:
    document = api.description.document
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert list(document["paths"]) == ["/api/v1/credentials"]


def test_document_names_no_other_host(api: Api) -> None:
    text = json.dumps(api.description.document)
    assert text.count("://") == 1
    assert api.description.document["servers"] == [{"url": django_settings.SITE_URL}]


def test_document_is_read_without_a_key_and_changed_by_no_method(api: Api) -> None:
    assert api.client.get("/api/v1/openapi.json").headers["content-type"] == "application/json"
    assert api.client.head("/api/v1/openapi.json").status_code == 200
    answer = api.client.post("/api/v1/openapi.json")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"


def test_problem_types_lead_to_their_explanation(api: Api) -> None:
    kind = api.mint(ttl=1).json["type"]
    address, _, pointer = kind.partition("#")
    assert address == f"{django_settings.SITE_URL}/api/v1/openapi.json"
    found: Any = api.description.document
    for name in pointer.strip("/").split("/"):
        found = found[name]
    assert isinstance(found, str)


@EVERY_EXAMPLE
@given(members=MEMBERS)
def test_what_the_document_allows_is_minted_and_nothing_else(
    api: Api, members: dict[str, object]
) -> None:
    document = api.description.document
    schema = {
        "$ref": "#/components/schemas/CredentialRequest",
        "components": document["components"],
    }
    allowed = Draft202012Validator(schema).is_valid(members)
    answer = api.mint(**members)  # checks the answer against the document
    assert answer.status == (201 if allowed else 422)


@EVERY_EXAMPLE
@given(ttl=st.integers(60, 30 * 24 * 3600), label=st.from_regex(r"\A[ -~]{1,64}\Z"))
def test_username_gives_back_what_was_asked_for(api: Api, ttl: int, label: str) -> None:
    answer = api.mint(ttl=ttl, label=label)
    assert answer.status == 201
    credential = answer.json
    parsed = username_parse(credential["username"])
    assert parsed is not None
    assert parsed.label == credential["label"] == label
    ends = datetime.fromisoformat(credential["expires_at"])
    assert ends == datetime.fromtimestamp(parsed.expires_at, UTC)


@EVERY_EXAMPLE
@given(data=st.binary(max_size=200))
def test_no_body_whatsoever_is_our_fault(api: Api, data: bytes) -> None:
    assert api.send(data).status < 500


@EVERY_EXAMPLE
@given(key=st.text(st.characters(exclude_categories=["C"], max_codepoint=0x7E), max_size=80))
def test_no_other_key_is_taken(api: Api, key: str) -> None:
    assert api.send(key=key).status == 401


@pytest.mark.parametrize("method", ["post", "get", "put", "patch", "delete"])
def test_addresses_without_a_door_have_problem_documents(api: Api, method: str) -> None:
    answer = api.client.generic(method.upper(), "/api/v1/elsewhere")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
