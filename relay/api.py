"""The credential API: an API key in, a WebRTC client's list of ICE servers out."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, cast

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from ninja import Body, Router, Status
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from accounts.models import ApiKey
from relay.problems import FieldProblem, Limit, ProblemError
from relay.publishing import ANNOUNCED_PER_PROJECT_MAX, AnnouncedFullError, ControlUnreachableError
from relay.services.control import username_announce
from relay.services.credentials import (
    LABEL_LENGTH_MAX,
    LABEL_PATTERN,
    Credential,
    CredentialLimitError,
    IceServer,
    credential_mint,
)

SECONDS_FAR_OUT: Final = 10**18

router = Router(tags=["credentials"])


class ApiRequest(HttpRequest):
    """A request whose API key was found."""

    auth: ApiKey


def seconds_only(value: object) -> object:
    """Refuse what Python would read as a number and JSON does not call one.

    A number too large for an integer of pydantic's is left to the limit, whose text says more.
    """
    if isinstance(value, bool | str):
        raise ValueError("a number of seconds, without quotes")
    if isinstance(value, float) and (value.is_integer() or math.isinf(value)):
        return int(math.copysign(SECONDS_FAR_OUT, value)) if abs(value) > SECONDS_FAR_OUT else value
    return value


class CredentialRequest(BaseModel):
    """What a credential is asked for with; every member may be left out.

    Factories, so that the description names no default: left out is not the same as any value.
    """

    model_config = ConfigDict(extra="forbid")

    ttl: Annotated[int | None, BeforeValidator(seconds_only)] = Field(
        default_factory=lambda: None,
        description="Seconds for which the credential is accepted. Where left out or null: a day, "
        "or the project's ceiling if that is lower.",
        json_schema_extra={
            "minimum": settings.TURN_CREDENTIAL_TTL_SECONDS_MIN,
            "maximum": settings.TURN_CREDENTIAL_TTL_SECONDS_MAX,
        },
    )
    label: str | None = Field(
        default_factory=lambda: None,
        description="Your own word for the credential: 1 to "
        f"{LABEL_LENGTH_MAX} printable ASCII characters, not only spaces. It becomes part of the "
        "username.",
        json_schema_extra={
            "pattern": f"^{LABEL_PATTERN}$",
            "minLength": 1,
            "maxLength": LABEL_LENGTH_MAX,
        },
    )

    userhash: StrictBool = Field(
        default_factory=lambda: False,
        description="Whether the client will send the hash of the username in its place "
        "(RFC 8489, USERHASH): the relays are told the username then. WebRTC clients never do. A "
        f"project may have {ANNOUNCED_PER_PROJECT_MAX:,} of these that have not ended.",
    )


class StunServer(BaseModel):
    """A server that needs no credential."""

    model_config = ConfigDict(extra="forbid")

    urls: list[str]


class TurnServer(StunServer):
    """A server with the credential that it accepts."""

    username: str
    credential: str


class CredentialAnswer(BaseModel):
    """A minted credential; goes into `new RTCPeerConnection(answer)` as it is."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern="^crd_[a-z2-7]{16}$")
    ice_servers: list[StunServer | TurnServer] = Field(alias="iceServers")
    username: str
    credential: str
    ttl: int = Field(description="Seconds from now to `expires_at`.")
    expires_at: datetime
    label: str | None
    region: str | None = Field(description="Always null: no relay is in a named region yet.")


@router.post(
    "/credentials",
    response={201: CredentialAnswer},
    by_alias=True,
    operation_id="credential_mint",
    summary="Mint a TURN credential",
    description="Returns a credential that all relays accept until it expires. Nothing is stored "
    "(but the username until it expires, where `userhash` asks for it), so a request may be sent "
    "again: each answer is a credential of its own.",
    openapi_extra={"requestBody": {"required": False}},
)
async def credentials_post(
    request: HttpRequest,
    body: Body[CredentialRequest] = CredentialRequest(),  # noqa: B008 - never changed
) -> Status[Any]:
    """Mint a credential for the project of the request's API key."""
    if request.META["QUERY_STRING"]:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "This address takes no query: addresses end up in logs. Send the key in the "
            "Authorization header and everything else in the body.",
        )
    try:
        credential = credential_mint(
            project=cast("ApiRequest", request).auth.project,
            ttl_seconds=body.ttl,
            label=body.label,
            now=timezone.now(),
        )
    except CredentialLimitError as error:
        raise limit_problem(error) from error
    if body.userhash:
        await username_announce_or_fail(credential)
    answer = CredentialAnswer(
        id=credential.id,
        iceServers=[ice_server_answer(server) for server in credential.ice_servers],
        username=credential.username,
        credential=credential.password,
        ttl=credential.ttl_seconds,
        expires_at=datetime.fromtimestamp(credential.expires_at, UTC),
        label=credential.label,
        region=None,
    )
    return Status(HTTPStatus.CREATED, answer)


async def username_announce_or_fail(credential: Credential) -> None:
    """Tell the relays the username; this server answers others meanwhile."""
    try:
        await asyncio.to_thread(
            username_announce,
            username=credential.username,
            expires_at=datetime.fromtimestamp(credential.expires_at, UTC),
            now=timezone.now(),
        )
    except AnnouncedFullError as error:
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"This project has {ANNOUNCED_PER_PROJECT_MAX:,} credentials with `userhash` that have "
            "not ended, and may have no more at a time. Wait until some have ended, ask for a "
            "shorter `ttl` from now on, or leave out `userhash`.",
        ) from error
    except ControlUnreachableError as error:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The relays cannot be told of a username just now; try again in a moment, or leave "
            "out `userhash`.",
            headers={"Retry-After": "1"},
        ) from error


def limit_problem(error: CredentialLimitError) -> ProblemError:
    """The answer to a request beyond a limit; it names the limit."""
    return ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        str(error),
        kind="limit",
        limit=Limit(name=error.name, unit=error.unit, minimum=error.minimum, maximum=error.maximum),
        errors=[FieldProblem(pointer=f"#/{error.name}", detail=str(error))],
    )


def ice_server_answer(server: IceServer) -> StunServer | TurnServer:
    """One ICE server as the answer shows it."""
    if not server.username:
        return StunServer(urls=list(server.urls))
    return TurnServer(
        urls=list(server.urls), username=server.username, credential=server.credential
    )
