"""Telling the relays: revoke, extend and limit credentials, limit projects, end sessions.

Each function writes its row and gives it the next version in one transaction, and publishes it once
that is committed. A relay that hears of it has applied it in a moment; one that does not, because
Valkey was away or it was itself, finds the row when it reads the database (`relay.control`).

Versions follow each other in the order of the commits, without a gap: the row that counts them is
locked until its change is committed or rolled back, so changes are made one at a time. Call these
functions last in a transaction of your own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import connection, transaction

from accounts.models import Project
from relay.control.messages import (
    NAME_LENGTH_MAX,
    ControlMessage,
    SessionEnd,
    UsernameAnnounce,
)
from relay.core.authentication import CLOCK_SKEW_SECONDS
from relay.core.credentials import username_parse
from relay.core.limits import OnExpiry, ProjectLimits
from relay.models import CredentialOverride, EndedSession, ProjectLimit
from relay.publishing import announcement_publish, message_publish_if_possible
from relay.services.credentials import CredentialLimitError
from relay.services.snapshot import (
    extension_message,
    limit_message,
    project_message,
    revocation_message,
)

CREDENTIAL_PATTERN: Final = r"(crd|tok)_[a-z2-7]{16}"  # minted here, or an access token
# A tenth of what a relay has room for (`TurnSettings.overrides_max`), which projects share.
OVERRIDES_PER_PROJECT_MAX: Final = 10_000
ALLOCATIONS_MAX: Final = 2**31 - 1
BITRATE_BPS_MAX: Final = 10**12
SESSION_END_KEPT: Final = timedelta(days=1)


class ControlError(ValueError):
    """What was asked for cannot be said to a relay; the text says why."""


def credential_revoke(*, project: Project, credential: str, now: datetime) -> None:
    """Refuse a credential from now on, on every relay, and end its calls.

    Where its project or its own limits say `drain`, they live out their lifetimes.

    Nobody knows which credentials there are, so one that was never minted can be revoked as well.

    Args:
        project: whose it is.
        credential: its id, as it was minted.
        now: the time.

    Raises:
        ControlError: not the form of an id, or too many of the project.
    """

    def change(override: CredentialOverride) -> None:
        override.revoked_at = override.revoked_at or now

    _override_change(project, credential, now, change, revocation_message)


def credential_extend(
    *, project: Project, credential: str, expires_at: datetime, now: datetime
) -> None:
    """Move the end of a credential, later or earlier; its username stays as it is.

    Nothing makes an access token last longer than its authorization server said (RFC 7635).

    Args:
        project: whose it is.
        credential: its id, as it was minted.
        expires_at: the new end.
        now: the time.

    Raises:
        ControlError: not the form of an id, or too many of the project.
        CredentialLimitError: an end further away than a credential of the project may live.
    """
    maximum = min(settings.TURN_CREDENTIAL_TTL_SECONDS_MAX, project.credential_ttl_seconds_max)
    if expires_at - now > timedelta(seconds=maximum):
        raise CredentialLimitError(
            f"a credential of this project ends at most {maximum} seconds from now",
            name="expires_at",
            unit="seconds",
            minimum=0,
            maximum=maximum,
        )

    def change(override: CredentialOverride) -> None:
        override.expires_at = expires_at

    _override_change(project, credential, now, change, extension_message)


def credential_limit(
    *,
    project: Project,
    credential: str,
    on_expiry: OnExpiry | None = None,
    allocations_max: int | None = None,
    bitrate_bps_max: int | None = None,
    now: datetime,
) -> None:
    """Set all limits of one credential, beside its project's; the lower of two holds.

    Args:
        project: whose it is.
        credential: its id, as it was minted.
        on_expiry: what becomes of its calls when it ends; None: what the project says.
        allocations_max: how many allocations it may hold at once; None: no limit of its own.
        bitrate_bps_max: bits a second of each allocation and direction; None: likewise.
        now: the time.

    Raises:
        ControlError: not the form of an id, a limit out of bounds, or too many of the project.
    """
    _bounds_check(allocations_max, bitrate_bps_max)

    def change(override: CredentialOverride) -> None:
        override.on_expiry = "" if on_expiry is None else on_expiry.value
        override.allocations_max = allocations_max
        override.bitrate_bps_max = bitrate_bps_max

    _override_change(project, credential, now, change, limit_message)


def project_limits_set(*, project: Project, limits: ProjectLimits | None) -> None:
    """Set all limits of a project; None: those of the relays' settings again.

    What lives beyond a lower number of allocations lives on.

    Raises:
        ControlError: a limit out of bounds.
    """
    said = limits or ProjectLimits()
    _bounds_check(said.allocations_max, said.bitrate_bps_max)
    with transaction.atomic():
        version = version_next()
        row, _ = ProjectLimit.objects.update_or_create(
            project=project,
            defaults={
                "version": version,
                "is_own": limits is not None,
                "on_expiry": said.on_expiry.value,
                "allocations_max": said.allocations_max,
                "bitrate_bps_max": said.bitrate_bps_max,
                "media_only": said.media_only,
            },
        )
        _publish(project_message(row, project.public_id), version)


def session_end(*, node: str, boot: str, allocation: int, now: datetime) -> None:
    """End one allocation: `Session` has all three.

    One that has ended already, or never was, is nobody's; nothing happens.

    Args:
        node: the relay's name.
        boot: which of its starts.
        allocation: its number there.
        now: the time.

    Raises:
        ControlError: not the form of a session's name.
    """
    if not all(0 < len(name) <= NAME_LENGTH_MAX and name.isprintable() for name in (node, boot)):
        raise ControlError("a session is named by its node, boot and number")
    with transaction.atomic():
        version = version_next()
        EndedSession.objects.update_or_create(
            node=node,
            boot=boot,
            allocation=allocation,
            defaults={"version": version, "until": now + SESSION_END_KEPT},
        )
        _publish(SessionEnd(node, boot, allocation), version)


def username_announce(*, username: str, expires_at: datetime, now: datetime) -> None:
    """Make a username known to the relays by its hash, for a client that sends USERHASH.

    Args:
        username: in whole, as it was minted.
        expires_at: when the relays may forget it.
        now: the time.

    Raises:
        AnnouncedFullError: its project has too many already.
        ControlError: not the form of a username.
        ControlUnreachableError: Valkey does not answer, so its client would be refused.
    """
    parsed = username_parse(username)
    if parsed is None:
        raise ControlError("a username says when it ends and whose it is")
    announcement_publish(
        message=UsernameAnnounce(username, expires_at.timestamp()),
        project=parsed.project,
        credential=parsed.credential,
        unix_now=now.timestamp(),
    )


def version_next() -> int:
    """The version of a change; the next one waits until this transaction has ended."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO relay_controlversion (id, number) VALUES (1, 1) ON CONFLICT (id)"
            " DO UPDATE SET number = relay_controlversion.number + 1 RETURNING number"
        )
        (number,) = cursor.fetchone()
    return int(number)


def _override_change(
    project: Project,
    credential: str,
    now: datetime,
    change: Callable[[CredentialOverride], None],
    message_of: Callable[[CredentialOverride, str], ControlMessage],
) -> None:
    if not re.fullmatch(CREDENTIAL_PATTERN, credential):
        raise ControlError("a credential's id is crd_ or tok_ and 16 letters and digits")
    # Its username ends no later than this, whenever it was minted.
    longest = settings.TURN_CREDENTIAL_TTL_SECONDS_MAX + CLOCK_SKEW_SECONDS
    with transaction.atomic():
        version = version_next()
        override = CredentialOverride.objects.filter(
            project=project, credential=credential
        ).first() or _override_new(project, credential, now)
        override.version = version
        override.until = now.astimezone(UTC) + timedelta(seconds=longest)
        change(override)
        override.save()
        _publish(message_of(override, project.public_id), version)


def _override_new(project: Project, credential: str, now: datetime) -> CredentialOverride:
    """A row for a credential that had none, where its project may have another one."""
    rows = CredentialOverride.objects.filter(project=project, until__gt=now)
    if rows[:OVERRIDES_PER_PROJECT_MAX].count() >= OVERRIDES_PER_PROJECT_MAX:
        raise ControlError(
            f"{OVERRIDES_PER_PROJECT_MAX:,} credentials of this project are revoked or changed, and"
            " more there cannot be until one of them has ended: limit the project instead, or end"
            " the session"
        )
    return CredentialOverride(project=project, credential=credential)


def _bounds_check(allocations_max: int | None, bitrate_bps_max: int | None) -> None:
    for value, minimum, maximum in (
        (allocations_max, 0, ALLOCATIONS_MAX),
        (bitrate_bps_max, 1, BITRATE_BPS_MAX),
    ):
        if value is not None and not minimum <= value <= maximum:
            raise ControlError(f"a limit is a whole number, {minimum} to {maximum}")


def _publish(message: ControlMessage, version: int) -> None:
    transaction.on_commit(partial(message_publish_if_possible, message=message, version=version))
