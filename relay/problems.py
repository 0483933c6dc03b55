"""Errors of the HTTP API as problem documents (RFC 9457), one form for all of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE: Final = "application/problem+json"


class Limit(BaseModel):
    """Which limit a request broke."""

    model_config = ConfigDict(extra="forbid")

    name: str
    unit: str
    minimum: int | None = None
    maximum: int | None = None


class FieldProblem(BaseModel):
    """What is wrong with one part of the request's body."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(
        description="A URI of the kind of problem; about:blank says no more than the status.",
        json_schema_extra={"format": "uri"},
    )
    title: str = Field(description="The kind of problem in a few words, always the same.")
    status: int = Field(description="The HTTP status code.", ge=400, le=599)
    detail: str = Field(description="What happened this time, and what to do about it.")
    limit: Limit | None = Field(default=None, description="The limit that was broken.")
    errors: list[FieldProblem] | None = Field(
        default=None,
        description="Each wrong part of the body: a JSON pointer to it and what is wrong.",
    )


# Kinds of problems that say more than their status; the API's description explains them.
KINDS: Final = {
    "body": "The body does not have the form that this document describes.",
    "limit": "A value lies beyond a limit of the service or of the project; `limit` names it.",
}


class ProblemError(Exception):
    """Ends a request with a problem document.

    `kind` names an entry of `KINDS`; without one, the status says everything.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        kind: str | None = None,
        limit: Limit | None = None,
        errors: list[FieldProblem] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.limit = limit
        self.errors = errors
        self.headers = headers or {}
