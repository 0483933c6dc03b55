"""Telling running relays to drain, to reload, to end a session, and waiting for their word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from relay.asking import Message, relays_ask
from relay.control.answers import Done, Origin, done_read
from relay.control.messages import Drain, Reload, SessionEnd, Undrain
from relay.services.control import session_end

RELOAD_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Told:
    """What became of it.

    Attributes:
        relays: what each that answered says.
        silent: those that did not.
    """

    relays: Mapping[Origin, Done]
    silent: tuple[Origin, ...]


def relays_drain(*, node: str | None = None, ends_at: datetime | None = None) -> Told:
    """Have relays take no new allocation.

    Args:
        node: this relay; None: all of them.
        ends_at: when what is left is ended; None: it may take as long as it wants.

    Raises:
        ControlUnreachableError: Valkey does not answer (so for those below).
    """
    deadline = ends_at.timestamp() if ends_at else None
    return _tell(partial(Drain, node=node, deadline=deadline), of_node(node))


def relays_undrain(*, node: str | None = None) -> Told:
    """Have relays take new allocations again."""
    return _tell(partial(Undrain, node=node), of_node(node))


def relays_reload(*, node: str | None = None) -> Told:
    """Have relays read their configuration again; it is in effect where they say so."""
    return _tell(partial(Reload, node=node), of_node(node), RELOAD_SECONDS)


def session_end_now(*, node: str, boot: str, allocation: int, now: datetime) -> Told:
    """End one session, and hear from its relay that it has.

    Where the relay does not answer, it ends it as soon as it hears of it (`session_end`).

    Raises:
        ControlError: not the form of a session's name.
    """
    message = partial(SessionEnd, node=node, boot=boot, allocation=allocation)
    told = _tell(message, lambda origin: (origin.node, origin.boot) == (node, boot))
    if not told.relays:
        session_end(node=node, boot=boot, allocation=allocation, now=now)
    return told


def of_node(node: str | None) -> Callable[[Origin], bool]:
    """Whether a process is of this relay; of any, where None."""
    return lambda origin: node in (None, origin.node)


def _tell(
    message: Message, concerns: Callable[[Origin], bool], seconds: float | None = None
) -> Told:
    answers = relays_ask(message, concerns=concerns, seconds=seconds)
    read = answers.read(done_read)
    return Told(read, answers.silent_with(read))
