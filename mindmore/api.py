"""The HTTP API under /api/v1/: API keys, strict JSON, problem documents, its OpenAPI description.

Each app brings its router; what all of them share is here. Whatever goes wrong is answered with
a problem document (RFC 9457), and no answer may be stored or carries a cookie.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any, Final
from urllib.parse import quote

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import Error as DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern, URLResolver, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.openapi.schema import OpenAPISchema
from ninja.parser import Parser
from ninja.security import HttpBearer

from accounts.models import ApiKey
from mindmore.key_lookup import key_find
from relay.api import router as relay_router
from relay.problems import KINDS, MEDIA_TYPE, FieldProblem, Limit, Problem, ProblemError

logger = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = 4096
ROOT: Final = "/api/v1"
DESCRIPTION: Final = f"{ROOT}/openapi.json"
NAME_SHOWN_MAX: Final = 40  # characters of an unknown member's name that an answer repeats

View = Callable[..., Any]


# --- answers --------------------------------------------------------------------------------------
def problem_response(problem: ProblemError) -> HttpResponse:
    """The problem as an answer."""
    kind = f"{settings.SITE_URL}{DESCRIPTION}#/components/x-problems/{problem.kind}"
    document = Problem(
        type=kind if problem.kind else "about:blank",
        title=KINDS[problem.kind] if problem.kind else problem.status.phrase,
        status=problem.status,
        detail=problem.detail,
        limit=problem.limit,
        errors=problem.errors,
    )
    response = HttpResponse(
        json.dumps(document.model_dump(exclude_none=True)),
        status=problem.status,
        content_type=MEDIA_TYPE,
        headers=problem.headers,
    )
    return headers_add(response)


def headers_add(response: HttpResponse) -> HttpResponse:
    """What every answer of the API says to caches and browsers."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if settings.SECURE_HSTS_SECONDS:
        hsts = f"max-age={settings.SECURE_HSTS_SECONDS}"
        response.headers.setdefault("Strict-Transport-Security", hsts)
    return response


def unauthorised() -> ProblemError:
    """The same words for whatever is wrong with a key: none, malformed, unknown, revoked."""
    return ProblemError(
        HTTPStatus.UNAUTHORIZED,
        "Send a live API key of the project: Authorization: Bearer mm_...",
        headers={"WWW-Authenticate": 'Bearer realm="mindmore"'},
    )


def body_too_large() -> ProblemError:
    """A body that is larger than any request of this API."""
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"A body has at most {BODY_BYTES_MAX} bytes.",
        kind="limit",
        limit=Limit(name="body", unit="bytes", maximum=BODY_BYTES_MAX),
    )


def bad_request(detail: str) -> ProblemError:
    """A request that cannot be read."""
    return ProblemError(HTTPStatus.BAD_REQUEST, detail)


# --- requests -------------------------------------------------------------------------------------
class ApiKeyBearer(HttpBearer):
    """Authorization: Bearer <API key>."""

    async def authenticate(self, request: HttpRequest, token: str) -> ApiKey | None:
        """The live key, or None."""
        return await key_find(token)


class RepeatedMemberError(ValueError):
    """An object says a member more than once."""


class StrictJsonParser(Parser):
    """JSON as RFC 8259 has it: UTF-8, no NaN, each member once."""

    def parse_body(self, request: HttpRequest) -> Any:
        """The body's value; ProblemError where there is none."""
        if request.content_type != "application/json":
            raise ProblemError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON: send Content-Type: application/json.",
                headers={"Accept-Post": "application/json"},
            )
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise ProblemError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "The body must not be compressed: send no Content-Encoding.",
                headers={"Accept-Encoding": "identity"},
            )
        if len(request.body) > BODY_BYTES_MAX:
            raise body_too_large()
        value = json_read(request.body)
        if not isinstance(value, dict):
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "The body must be a JSON object.",
                kind="body",
                errors=[FieldProblem(pointer="#", detail="must be a JSON object")],
            )
        return value


def json_read(body: bytes) -> Any:
    """The value of a JSON text; ProblemError says what is wrong, and where."""
    try:
        return json.loads(
            body.decode(), object_pairs_hook=members_once, parse_constant=constant_refuse
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise bad_request(f"The body is not JSON: {error.msg} at {place}.") from None
    except UnicodeDecodeError as error:
        raise bad_request(f"The body is not UTF-8: see its byte {error.start}.") from None
    except RepeatedMemberError as error:
        raise bad_request(f"The body says the member {error} twice.") from None
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else error
        raise bad_request(f"The body is not JSON: {detail}.") from None


def members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; ValueError where a name comes twice or is no Unicode text."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError("a name of a member is not Unicode text") from None
        if name in members:
            raise RepeatedMemberError(json.dumps(name[:NAME_SHOWN_MAX]))
        members[name] = value
    return members


def constant_refuse(name: str) -> None:
    """NaN and the infinities are Python's, not JSON's."""
    raise ValueError(f"it has no {name}")


# --- the API --------------------------------------------------------------------------------------
class MindmoreAPI(NinjaAPI):
    """django-ninja with problem documents for what it answers itself, and a fuller description."""

    @property
    def urls(self) -> tuple[list[URLResolver | URLPattern], str, str]:
        """Its addresses; what lies under none of them is a problem document too."""
        patterns, app_name, namespace = super().urls
        for pattern in patterns:
            assert pattern.callback
            pattern.callback = problems_only(pattern.callback)
        return [*patterns, re_path("", problems_only(not_found))], app_name, namespace

    def create_response(self, *args: Any, **options: Any) -> HttpResponse:
        """A successful answer, with the headers that all have."""
        return headers_add(super().create_response(*args, **options))

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        """The description, with the problem documents in every operation."""
        document = super().get_openapi_schema(**options)
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        definitions = schema.pop("$defs")
        document["components"]["schemas"].update(definitions, Problem=schema)
        document["components"]["x-problems"] = KINDS
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].update(problem_responses())
                for body in operation.get("requestBody", {}).get("content", {}).values():
                    body["schema"].pop("default", None)  # an instance of our model
        return document


def problem_responses() -> dict[str, object]:
    """How the description speaks of errors: one schema, whatever the status."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "401": {
            "description": "No live API key",
            "headers": {"WWW-Authenticate": {"schema": {"type": "string"}}},
            "content": content,
        },
        "default": {"description": "A problem document (RFC 9457)", "content": content},
    }


def problems_only(view: View) -> View:
    """Give `view` problem documents where it would answer 404, 405 or fail in its own words."""

    @csrf_exempt
    async def wrapped(request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        try:
            answer = view(request, *args, **options)
            response: HttpResponse = await answer if iscoroutinefunction(view) else answer
        except Http404:
            response = problem_response(
                ProblemError(HTTPStatus.NOT_FOUND, f"Nothing is here; {DESCRIPTION} lists what is.")
            )
        if isinstance(response, HttpResponseNotAllowed):
            allowed = response.headers["Allow"]
            detail = f"This address takes {allowed}."
            return problem_response(
                ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, detail, headers={"Allow": allowed})
            )
        return response

    return wrapped


def not_found(request: HttpRequest) -> HttpResponse:
    """Any other address."""
    raise Http404


api = MindmoreAPI(
    title="Mindmore",
    version="1",
    description="Mint TURN credentials. Every error is a problem document (RFC 9457).",
    urls_namespace="api",
    openapi_url=None,
    docs_url=None,
    servers=[{"url": settings.SITE_URL}],
    auth=ApiKeyBearer(),
    parser=StrictJsonParser(),
)
api.add_router("", relay_router)


@cache
def description() -> bytes:
    """The OpenAPI document; it does not change while the process lives."""
    return json.dumps(api.get_openapi_schema(path_prefix=f"{ROOT}/")).encode()


@api.api_operation(["GET", "HEAD"], "/openapi.json", auth=None, include_in_schema=False)
async def openapi_get(request: HttpRequest) -> HttpResponse:
    """The description of this API."""
    response = HttpResponse(description(), content_type="application/json")
    response.headers["Cache-Control"] = "no-cache"
    return headers_add(response)


# --- errors ---------------------------------------------------------------------------------------
@api.exception_handler(ProblemError)
def on_problem(request: HttpRequest, error: ProblemError) -> HttpResponse:
    """What a view or service refused."""
    return problem_response(error)


@api.exception_handler(AuthenticationError)
def on_unauthenticated(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    """No live key."""
    return problem_response(unauthorised())


@api.exception_handler(HttpError)
def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    """django-ninja wraps what the parser raised."""
    if isinstance(error.__cause__, ProblemError):
        return problem_response(error.__cause__)
    return problem_response(ProblemError(HTTPStatus(error.status_code), error.message))


@api.exception_handler(RequestDataTooBig)
def on_too_large(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    """Django's own limit came first."""
    return problem_response(body_too_large())


@api.exception_handler(ValidationError)
def on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """The body is JSON, but not what the description says."""
    errors = [field_problem(each) for each in error.errors]
    detail = "; ".join(f"{each.pointer}: {each.detail}" for each in errors)
    return problem_response(
        ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, kind="body", errors=errors)
    )


def field_problem(error: dict[str, Any]) -> FieldProblem:
    """One error of pydantic: its `loc` is ("body", parameter, member, ...)."""
    names = [str(name)[:NAME_SHOWN_MAX] for name in error["loc"][2:]]
    pointer = "#" + "".join(
        "/" + quote(name.replace("~", "~0").replace("/", "~1"), safe="~") for name in names
    )
    if error["type"] == "extra_forbidden":
        return FieldProblem(pointer=pointer, detail="there is no such member")
    return FieldProblem(pointer=pointer, detail=error["msg"].removeprefix("Value error, "))


@api.exception_handler(DatabaseError)
def on_database_away(request: HttpRequest, error: Exception) -> HttpResponse:
    """The database is restarting, gone, too slow, or half way through a migration."""
    logger.error("API: no database", exc_info=error, extra={"request": request})
    return problem_response(
        ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The database does not answer just now; try again in a moment.",
            headers={"Retry-After": "1"},
        )
    )


@api.exception_handler(Exception)
def on_failure(request: HttpRequest, error: Exception) -> HttpResponse:
    """A fault of ours."""
    logger.error("API: a request failed", exc_info=error, extra={"request": request})
    return problem_response(
        ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "This is our fault, and it has been noted.")
    )
