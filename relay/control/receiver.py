"""What one relay does with a message: the core's control is told, its effects are carried out.

The channel (`relay.control.channel`) brings the messages; this knows nothing of Valkey.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from relay.control.messages import (
    ControlMessage,
    CredentialExtend,
    CredentialLimit,
    CredentialRevoke,
    ProjectLimitsSet,
    UsernameAnnounce,
)
from relay.core.control import CUT_OFF
from relay.core.effects import Effect
from relay.core.entitlements import EntitlementsFullError
from relay.core.turn import TurnServer

Answer = Mapping[str, object]
Reply = Callable[[Answer], None]
Handler = Callable[..., None]


class ControlSource(Protocol):
    """Where messages come from; the runner is given one."""

    async def run(self, receiver: Receiver) -> None:
        """Bring messages to `receiver` until cancelled; whatever fails, it tries again."""


class Receiver:
    """The control of one running relay.

    Attributes:
        node, boot: which start of which relay this is.
        handlers: what each kind of message does: called with the message, and with `reply`, which
            takes the answer now or later. Others may add theirs.
        counts: messages applied by kind, and those that there was no room for.
    """

    def __init__(
        self,
        turn: TurnServer,
        perform: Callable[[Iterable[Effect]], None],
        steady: Callable[[], float],
        *,
        node: str,
        boot: str,
    ) -> None:
        self.node = node
        self.boot = boot
        self.counts: Counter[str] = Counter()
        self._turn = turn
        self._perform = perform
        self._steady = steady
        self.handlers: dict[type[ControlMessage], Handler] = {
            CredentialRevoke: self._credential_revoke,
            CredentialExtend: self._credential_extend,
            CredentialLimit: self._credential_limit,
            ProjectLimitsSet: self._project_limits_set,
            UsernameAnnounce: self._username_announce,
        }

    def receive(self, message: ControlMessage, reply: Reply) -> bool:
        """Take one message; it has its effect when this returns.

        Returns:
            Whether there was room for it.
        """
        handler = self.handlers.get(type(message))
        if handler is None:
            self.counts["unknown"] += 1
            return True
        try:
            handler(message, reply)
        except EntitlementsFullError:
            self.counts["full"] += 1
            return False
        self.counts[type(message).__name__] += 1
        return True

    def cut_off_set(self, cut_off: bool) -> None:
        """Refuse new allocations, as nobody can say any more whose they may be; or no longer."""
        if cut_off:
            self._turn.control.new_refuse(CUT_OFF)
        else:
            self._turn.control.new_accept(CUT_OFF)

    def is_addressed(self, node: str | None) -> bool:
        """Whether a message for `node` is for this relay; None is every one."""
        return node is None or node == self.node

    def _credential_revoke(self, message: CredentialRevoke, _: Reply) -> None:
        self._perform(
            self._turn.control.credential_revoke(
                message.project, message.credential, message.until, self._steady()
            )
        )

    def _credential_extend(self, message: CredentialExtend, _: Reply) -> None:
        self._perform(
            self._turn.control.credential_extend(
                message.project,
                message.credential,
                message.expires_at,
                message.until,
                self._steady(),
            )
        )

    def _credential_limit(self, message: CredentialLimit, _: Reply) -> None:
        self._perform(
            self._turn.control.credential_limit(
                message.project,
                message.credential,
                message.until,
                self._steady(),
                on_expiry=message.on_expiry,
                allocations_max=message.allocations_max,
                bitrate_bps_max=message.bitrate_bps_max,
            )
        )

    def _project_limits_set(self, message: ProjectLimitsSet, _: Reply) -> None:
        self._perform(
            self._turn.control.project_limits_set(message.project, message.limits, self._steady())
        )

    def _username_announce(self, message: UsernameAnnounce, _: Reply) -> None:
        self._turn.usernames.announce(message.username, message.until)
