"""A customer's program: a project's key, and a client that checks every answer it gets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.test import Client
from jsonschema import Draft202012Validator

from accounts.models import ApiKey, Project, User
from accounts.services import api_key_create, organisation_create, project_create

PATH = "/api/v1/credentials"


@dataclass(frozen=True)
class Customer:
    """A project and a key of it."""

    project: Project
    api_key: ApiKey
    key: str


def customer_make() -> Customer:
    """An organisation with a project and a key; nobody signs in, so no password is hashed."""
    owner = User.objects.create_user(email="owner@example.org", password=None)
    organisation = organisation_create(owner=owner, name="Example")
    project = project_create(organisation=organisation, name="Calls")
    api_key, key = api_key_create(project=project, name="server")
    return Customer(project, api_key, key)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Description:
    """The OpenAPI document, and whether an answer is one that it describes."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def check(self, answer: Answer, *, method: str = "post", path: str = PATH) -> None:
        """Fail where the status, the media type or the body are not as described."""
        responses = self.document["paths"][path][method]["responses"]
        described = responses.get(str(answer.status)) or responses["default"]
        media_type = answer.headers["content-type"].partition(";")[0]
        schema = described["content"][media_type]["schema"]
        validator = Draft202012Validator(
            {**schema, "components": self.document["components"]},
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        )
        validator.validate(answer.json)
        for name in described.get("headers", ()):
            assert name.lower() in answer.headers


class Api:
    """Asks as a customer's program would; each answer is checked against the description."""

    def __init__(self, customer: Customer) -> None:
        self.customer = customer
        self.client = Client(headers={"host": "localhost"})
        document = self.client.get("/api/v1/openapi.json").json()
        self.description = Description(document)

    def send(
        self,
        data: bytes = b"",
        *,
        method: str = "POST",
        path: str = PATH,
        key: str | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """One request; with the customer's key where none is named."""
        sent = {"authorization": f"Bearer {self.customer.key if key is None else key}", **headers}
        response = self.client.generic(
            method,
            path,
            data,
            content_type=content_type,
            headers={name: value for name, value in sent.items() if value},
        )
        found = {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(response.status_code, found, response.content)
        if method == "POST" and path.startswith(PATH):
            self.description.check(answer)
        assert "set-cookie" not in found
        assert not response.cookies
        assert found["cache-control"] == "no-store"
        if answer.status >= 400:
            assert found["content-type"] == "application/problem+json"
        if answer.status >= 400 and method != "HEAD":
            assert answer.json["status"] == answer.status
        return answer

    def mint(self, **members: object) -> Answer:
        """Ask for a credential."""
        return self.send(json.dumps(members).encode())
