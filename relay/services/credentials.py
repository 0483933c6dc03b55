"""TURN credentials for a project: made from the secret that the relays share, stored nowhere.

A credential says in its username when it ends and whose it is, and its password proves that
(`relay.core.credentials`), so minting needs no row and the relay no look-up.
"""

from __future__ import annotations

import re
import secrets
from base64 import b32encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings

from accounts.models import Project
from relay.core.credentials import password_derive, username_format

CREDENTIAL_ID_BYTES: Final = 10  # 16 base32 characters
LABEL_LENGTH_MAX: Final = 64
# Printable ASCII only: clients and servers treat other characters of a username in different
# ways (SASLprep, OpaqueString), and its bytes are what the password is made from.
LABEL_PATTERN: Final = rf"[ -~]{{1,{LABEL_LENGTH_MAX}}}"


class CredentialLimitError(ValueError):
    """What was asked for lies beyond a limit, which is named."""

    def __init__(self, message: str, *, name: str, unit: str, minimum: int, maximum: int) -> None:
        super().__init__(message)
        self.name = name
        self.unit = unit
        self.minimum = minimum
        self.maximum = maximum


@dataclass(frozen=True)
class IceServer:
    """One entry of a WebRTC client's list (W3C `RTCIceServer`); a STUN server has no username."""

    urls: Sequence[str]
    username: str = ""
    credential: str = ""


@dataclass(frozen=True)
class Credential:
    """A minted credential."""

    id: str
    username: str
    password: str
    ttl_seconds: int
    expires_at: int
    label: str | None
    ice_servers: Sequence[IceServer]


def credential_mint(
    *, project: Project, ttl_seconds: int | None = None, label: str | None = None, now: datetime
) -> Credential:
    """Make a credential for a project; nothing is stored.

    Args:
        project: who relays with it, and who pays.
        ttl_seconds: how long it is accepted; where None, a day, or the project's ceiling if lower.
        label: the customer's own word for it, 1 to 64 printable ASCII characters, not only spaces.
        now: the time to count from.

    Raises:
        CredentialLimitError: a lifetime shorter than the service allows or longer than the
            project may have; a label of other characters, or too long.
    """
    label_check(label=label)
    ttl_seconds = ttl_check(project=project, ttl_seconds=ttl_seconds)
    identifier = f"crd_{b32encode(secrets.token_bytes(CREDENTIAL_ID_BYTES)).decode().lower()}"
    expires_at = int(now.timestamp()) + ttl_seconds
    username = username_format(
        expires_at=expires_at, project=project.public_id, credential=identifier, label=label or ""
    )
    password = password_derive(settings.TURN_SECRETS[0].encode(), username)
    return Credential(
        id=identifier,
        username=username,
        password=password,
        ttl_seconds=ttl_seconds,
        expires_at=expires_at,
        label=label,
        ice_servers=ice_servers(
            host=settings.TURN_HOST,
            port=settings.TURN_PORT,
            tls_port=settings.TURN_TLS_PORT,
            username=username,
            password=password,
        ),
    )


def ttl_check(*, project: Project, ttl_seconds: int | None) -> int:
    """The lifetime in seconds that a credential of `project` gets."""
    minimum = settings.TURN_CREDENTIAL_TTL_SECONDS_MIN
    maximum = min(settings.TURN_CREDENTIAL_TTL_SECONDS_MAX, project.credential_ttl_seconds_max)
    if ttl_seconds is None:
        return int(min(settings.TURN_CREDENTIAL_TTL_SECONDS_DEFAULT, maximum))
    if not minimum <= ttl_seconds <= maximum:
        raise CredentialLimitError(
            f"ttl is {number_show(ttl_seconds)}: a credential of this project lives "
            f"{minimum} to {maximum} seconds",
            name="ttl",
            unit="seconds",
            minimum=minimum,
            maximum=maximum,
        )
    return ttl_seconds


def number_show(number: int) -> str:
    """The number, or what is enough of it."""
    return str(number) if abs(number) < 10**18 else "far out of range"


def label_check(*, label: str | None) -> None:
    """Refuse a label that could not be part of a username."""
    if label is None or (re.fullmatch(LABEL_PATTERN, label) and not label.isspace()):
        return
    raise CredentialLimitError(
        f"a label is 1 to {LABEL_LENGTH_MAX} printable ASCII characters, not only spaces",
        name="label",
        unit="characters",
        minimum=1,
        maximum=LABEL_LENGTH_MAX,
    )


def ice_servers(
    *, host: str, port: int, tls_port: int | None, username: str, password: str
) -> tuple[IceServer, ...]:
    """What a WebRTC client is given (URIs of RFC 7064 and RFC 7065).

    STUN, TURN over UDP, and what gets through where UDP does not: TURN over TLS, or over TCP where
    there is no certificate. Each further address would cost every client a second or more before
    its call.
    """
    host = f"[{host}]" if ":" in host else host
    over_tcp = f"turn:{host}:{port}" if tls_port is None else f"turns:{host}:{tls_port}"
    urls = [f"turn:{host}:{port}?transport=udp", f"{over_tcp}?transport=tcp"]
    return (
        IceServer(urls=(f"stun:{host}:{port}",)),
        IceServer(urls=tuple(urls), username=username, credential=password),
    )
