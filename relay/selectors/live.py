"""What the relays say of this moment. Nothing of it is kept; addresses come only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from redis.exceptions import RedisError

from accounts.models import Project
from relay.asking import relays_alive, relays_ask
from relay.control.answers import (
    AnswerError,
    LiveRefusal,
    LiveSession,
    Origin,
    RelayStatus,
    refusals_read,
    sessions_read,
    status_read,
)
from relay.control.messages import ExplainAsk, SessionsAsk, StatusAsk
from relay.publishing import ControlUnreachableError


@dataclass(frozen=True)
class LiveSessions:
    """The allocations that live, the newest first.

    Attributes:
        sessions: as far as the relays said.
        left_off: how many more there are than a relay says at once.
        answered, silent: relays that said theirs, and those that did not.
    """

    sessions: list[LiveSession]
    left_off: int
    answered: tuple[Origin, ...]
    silent: tuple[Origin, ...]


@dataclass(frozen=True)
class LiveRefusals:
    """What was refused in the last quarter of an hour, the oldest first; otherwise as above."""

    refusals: list[tuple[Origin, LiveRefusal]]
    answered: tuple[Origin, ...]
    silent: tuple[Origin, ...]


@dataclass(frozen=True)
class LiveStatus:
    """How each relay is; otherwise as above."""

    relays: Mapping[Origin, RelayStatus]
    silent: tuple[Origin, ...]


def sessions_live(
    *, project: Project | None = None, label: str = "", with_addresses: bool = False
) -> LiveSessions:
    """The allocations that live now.

    Args:
        project: of this one only; None is for the operator.
        label: of this username, credential id or label only.
        with_addresses: whether the addresses of clients leave the relays at all.

    Raises:
        ControlUnreachableError: Valkey does not answer.
    """
    asked = relays_ask(
        partial(
            SessionsAsk,
            project=project.public_id if project else None,
            label=label or None,
            with_addresses=with_addresses,
        )
    )
    sessions: list[LiveSession] = []
    left_off, answered = 0, []
    for origin, parts in asked.parts.items():
        try:
            read = [sessions_read(origin, part) for part in parts]
        except AnswerError:
            continue
        answered.append(origin)
        left_off += sum(left for _, left in read)
        for some, _ in read:
            sessions += some
    sessions.sort(key=lambda session: session.started_at, reverse=True)
    silent = (*asked.silent, *(origin for origin in asked.parts if origin not in answered))
    return LiveSessions(sessions, left_off, tuple(answered), silent)


def refusals_live(*, label: str, project: Project | None = None) -> LiveRefusals:
    """Why requests with a username, credential id or label were refused.

    Args:
        label: which of the three it is does not matter.
        project: of this one only, as its owner may know; None is for the operator.

    Raises:
        ControlUnreachableError: Valkey does not answer.
    """
    asked = relays_ask(
        partial(ExplainAsk, label=label, project=project.public_id if project else None)
    )
    read = asked.read(refusals_read)
    refusals = [(origin, refusal) for origin, found in read.items() for refusal in found]
    refusals.sort(key=lambda pair: pair[1].occurred_at)
    return LiveRefusals(refusals, tuple(read), asked.silent_with(read))


def relays_live() -> LiveStatus:
    """How the relays are.

    Raises:
        ControlUnreachableError: Valkey does not answer.
    """
    asked = relays_ask(StatusAsk)
    read = asked.read(status_read)
    return LiveStatus(read, asked.silent_with(read))


def nodes_live() -> list[str]:
    """What the relays that listen are called.

    Raises:
        ControlUnreachableError: Valkey does not answer.
    """
    try:
        return sorted({origin.node for origin in relays_alive()})
    except (RedisError, OSError) as error:
        raise ControlUnreachableError("the relays are not known: Valkey is away") from error
