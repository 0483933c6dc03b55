"""Access tokens for a project (RFC 7635): what an authorization server makes, made by ourselves.

A token is stored nowhere: the relay opens it with the key that sealed it, and that key says whose
it is (`relay.core.access_tokens`).
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import connection

from accounts.models import Project
from relay.core.access_tokens import (
    MAC_KEY_LENGTH_MIN,
    NONCE_LENGTH,
    AccessToken,
    TokenKey,
    token_credential,
    token_seal,
)
from relay.sealing import gcm_seal
from relay.services.credentials import ttl_check


class NoTokenKeyError(LookupError):
    """No key of an authorization server is this project's."""


@dataclass(frozen=True)
class MintedToken:
    """What a client is given.

    Attributes:
        id: the token's credential id, by which it is revoked and its refusals are found.
        kid: what it sends as USERNAME.
        access_token: what it sends as ACCESS-TOKEN, in Base64.
        mac_key: what it covers its requests with, in Base64.
        server_name: the relay that the token is good for.
        ttl_seconds, expires_at: its lifetime, and its end in unix seconds.
    """

    id: str
    kid: str
    access_token: str
    mac_key: str
    server_name: str
    ttl_seconds: int
    expires_at: int


def access_token_mint(
    *,
    project: Project,
    ttl_seconds: int | None = None,
    mac_key_length: int = MAC_KEY_LENGTH_MIN,
    now: datetime,
) -> MintedToken:
    """Make an access token for a project, with the first key that is the project's.

    Args:
        project: who relays with it, and who pays.
        ttl_seconds: how long it is accepted; where None, a day, or the project's ceiling if lower.
        mac_key_length: in bytes; 20 for MESSAGE-INTEGRITY, 32 for MESSAGE-INTEGRITY-SHA256.
        now: the time to count from.

    Raises:
        NoTokenKeyError: the project has no key.
        CredentialLimitError: as for a credential with a password.
    """
    keys = (TokenKey(*key) for key in settings.TURN_OAUTH_KEYS)
    key = next((key for key in keys if key.project == project.public_id), None)
    if key is None:
        raise NoTokenKeyError(f"no key in MINDMORE_TURN_OAUTH_KEYS is of {project.public_id}")
    ttl_seconds = ttl_check(project=project, ttl_seconds=ttl_seconds)
    issued_at = int(now.timestamp())
    token = AccessToken(secrets.token_bytes(mac_key_length), issued_at, ttl_seconds)
    server_name = settings.TURN_OAUTH_SERVER_NAME
    value = token_seal(gcm_seal, key.key, server_name, token, secrets.token_bytes(NONCE_LENGTH))
    return MintedToken(
        id=token_credential(value),
        kid=key.kid,
        access_token=b64encode(value).decode(),
        mac_key=b64encode(token.mac_key).decode(),
        server_name=server_name,
        ttl_seconds=ttl_seconds,
        expires_at=issued_at + ttl_seconds,
    )


def keys_without_project(keys: Iterable[TokenKey]) -> list[TokenKey]:
    """Those whose project does not exist: what their tokens relay is on nobody's account."""
    keys = tuple(keys)
    names = {key.project for key in keys}
    known = set(Project.objects.filter(public_id__in=names).values_list("public_id", flat=True))
    return [key for key in keys if key.project not in known]


def keys_without_project_alone(keys: Iterable[TokenKey]) -> list[TokenKey]:
    """The same in a thread of its own, whose connection to the database is closed afterwards."""
    try:
        return keys_without_project(keys)
    finally:
        connection.close()
