"""What an operator asks of a running relay: drain, reload, end a session; what lives, and why not.

It has a place in the control channel's receiver for each of these messages; SIGHUP comes here too.
Answers are made a part at a time, between two turns of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from operator import attrgetter
from typing import Protocol

from relay.control.answers import (
    PROJECTS_SHOWN,
    SESSIONS_MAX,
    SESSIONS_PER_PART,
    Done,
    LiveRefusal,
    LiveSession,
    RelayStatus,
    address_show,
    facts_part,
    refusals_part,
    sessions_part,
)
from relay.control.messages import (
    Drain,
    ExplainAsk,
    Reload,
    SessionEnd,
    SessionsAsk,
    StatusAsk,
    Undrain,
)
from relay.control.receiver import Receiver, Reply
from relay.core.allocation import TCP_PROTOCOL, Allocation
from relay.core.credentials import username_parse
from relay.core.effects import Effect
from relay.core.refusals import Refusal, username_is_about
from relay.core.turn import TurnServer
from relay.log import log
from relay.metering.meter import Meter
from relay.reload import Reloader

LISTINGS_MAX = 8  # that are under way at once
PROTOCOL_NAMES = {TCP_PROTOCOL: "tcp"}


class Clock(Protocol):
    """The two times of a relay; see `relay.runner.Clock`."""

    steady: Callable[[], float]

    def unix(self) -> float:
        """The time of day, unix seconds."""


class Desk:
    """The desk of one relay."""

    def __init__(
        self,
        *,
        turn: TurnServer,
        receiver: Receiver,
        reloader: Reloader,
        meter: Meter,
        perform: Callable[[Iterable[Effect]], None],
        clock: Clock,
    ) -> None:
        """Take its places in the receiver.

        Args:
            turn: the core.
            receiver: of the control channel.
            reloader: takes over new configurations.
            meter: knows when sessions began.
            perform: carries out effects.
            clock: both times.
        """
        self._turn = turn
        self._receiver = receiver
        self._reloader = reloader
        self._meter = meter
        self._perform = perform
        self._clock = clock
        self._started_at = self._configured_at = clock.unix()
        self._configuration_refusal = ""
        self._drained_is_said = False
        self._listings = 0
        self._works: set[asyncio.Task[None]] = set()
        receiver.handlers |= {
            SessionEnd: self._session_end,
            Drain: self._drain,
            Undrain: self._undrain,
            Reload: self._reload,
            SessionsAsk: self._sessions,
            ExplainAsk: self._explain,
            StatusAsk: self._status,
        }

    def hang_up(self) -> None:
        """SIGHUP: reload."""
        self._begin(self._reload_and_say(None))

    def sweep(self) -> None:
        """Say once that a drain has done its work: to be called every second."""
        is_drained = self._turn.control.is_drained
        if is_drained and not self._drained_is_said:
            log("relay_drained")
        self._drained_is_said = is_drained

    def close(self) -> None:
        """Begin no more, and leave what is under way."""
        for task in self._works:
            task.cancel()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    # --- what it is told --------------------------------------------------------------------------

    def _session_end(self, message: SessionEnd, reply: Reply) -> None:
        if (message.node, message.boot) != (self._receiver.node, self._receiver.boot):
            return
        effects = self._turn.control.session_end(message.allocation)
        self._perform(effects)
        self._done(reply, is_done=bool(effects), reason="" if effects else "no such session lives")

    def _drain(self, message: Drain, reply: Reply) -> None:
        if not self._receiver.is_addressed(message.node):
            return
        log("relay_draining", allocations=len(self._turn.table.by_id))
        self._drained_is_said = False
        self._perform(self._turn.control.drain(message.deadline, self._clock.steady()))
        self._done(reply, is_done=True)

    def _undrain(self, message: Undrain, reply: Reply) -> None:
        if not self._receiver.is_addressed(message.node):
            return
        was_draining = self._turn.control.is_draining
        self._turn.control.undrain()
        if was_draining:
            log("relay_undrained")
        self._done(reply, is_done=True, reason="" if was_draining else "it was not draining")

    def _reload(self, message: Reload, reply: Reply) -> None:
        if self._receiver.is_addressed(message.node):
            self._begin(self._reload_and_say(reply))

    async def _reload_and_say(self, reply: Reply | None) -> None:
        outcome = await self._reloader.reload()
        self._configuration_refusal = outcome.refusal
        if outcome.refusal:
            log("configuration_kept", level="warning", reason=outcome.refusal)
        else:
            self._configured_at = self._clock.unix()
            log("configuration_reloaded", changed=list(outcome.changed))
        if reply is not None:
            is_done = not outcome.refusal
            self._done(reply, is_done=is_done, reason=outcome.refusal, changed=outcome.changed)

    def _done(
        self, reply: Reply, *, is_done: bool, reason: str = "", changed: tuple[str, ...] = ()
    ) -> None:
        reply(facts_part(Done(is_done, reason, changed, len(self._turn.table.by_id))))

    # --- what it is asked -------------------------------------------------------------------------

    def _status(self, _: StatusAsk, reply: Reply) -> None:
        turn, control = self._turn, self._turn.control
        reply(
            facts_part(
                RelayStatus(
                    started_at=self._started_at,
                    allocations=len(turn.table.by_id),
                    ports_taken=turn.table.ports.taken_count,
                    closed_because=tuple(turn.table.closed_because),
                    is_draining=control.is_draining,
                    drain_ends_at=control.drain_ends_at,
                    drain_ended=control.drain_ended_count,
                    configured_at=self._configured_at,
                    configuration_refusal=self._configuration_refusal,
                    refused={str(code): count for code, count in turn.guard.refused.items()},
                    dropped=dict(turn.dropped),
                    not_media=dict(turn.guard.flagged.most_common(PROJECTS_SHOWN)),
                )
            )
        )

    def _explain(self, message: ExplainAsk, reply: Reply) -> None:
        self._list(self._explanation(message, reply))

    def _sessions(self, message: SessionsAsk, reply: Reply) -> None:
        self._list(self._sessions_list(message, reply))

    def _list(self, work: Coroutine[None, None, None]) -> None:
        if self._listings >= LISTINGS_MAX:
            work.close()
            return  # whoever asks so often is told that this relay did not answer
        self._listings += 1
        self._begin(self._listing(work))

    async def _listing(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        finally:
            self._listings -= 1

    async def _explanation(self, message: ExplainAsk, reply: Reply) -> None:
        found: list[Refusal] = []
        refusals, now = self._turn.guard.refusals, self._clock.steady()
        for some in refusals.explain_steps(message.label, message.project, now):
            found += some
            await asyncio.sleep(0)
        found.sort(key=attrgetter("occurred_at"))
        latest = found[-SESSIONS_PER_PART:]
        reply(refusals_part([self._refusal(refusal) for refusal in latest]))

    def _refusal(self, refusal: Refusal) -> LiveRefusal:
        parsed = username_parse(refusal.username)
        return LiveRefusal(
            occurred_at=refusal.occurred_at + self._turn.unix_offset_seconds,
            project=refusal.project,
            credential=parsed.credential if parsed else "",
            method=refusal.method,
            code=refusal.code,
            rule=refusal.rule,
        )

    async def _sessions_list(self, message: SessionsAsk, reply: Reply) -> None:
        asked = list(self._turn.table.by_id.values())
        if message.project is not None:
            asked = [found for found in asked if found.owner == message.project]
        said = 0
        for start in range(0, max(1, len(asked)), SESSIONS_PER_PART):
            part = [
                self._session(found, message.with_addresses)
                for found in asked[start : start + SESSIONS_PER_PART]
                if self._is_asked_for(found, message.label)
            ]
            said += len(part)
            left = max(0, len(asked) - start - SESSIONS_PER_PART)
            is_last = not left or said >= SESSIONS_MAX
            if part or is_last:
                reply(sessions_part(part, is_last=is_last, left_off=left if is_last else 0))
            if is_last:
                return
            await asyncio.sleep(0)

    def _is_asked_for(self, allocation: Allocation, label: str | None) -> bool:
        if allocation.id not in self._turn.table.by_id:
            return False  # it has ended meanwhile
        return label is None or username_is_about(allocation.username, label)

    def _session(self, allocation: Allocation, with_addresses: bool) -> LiveSession:
        relayed = allocation.relayed.values()
        unix_offset_seconds = self._turn.unix_offset_seconds
        return LiveSession(
            node=self._receiver.node,
            boot=self._receiver.boot,
            allocation=allocation.id,
            project=allocation.owner,
            credential=allocation.credential,
            transport=allocation.transport,
            protocol=PROTOCOL_NAMES.get(allocation.protocol, "udp"),
            started_at=self._meter.started_at(allocation.id) or 0.0,
            ends_at=min(allocation.expires_at + unix_offset_seconds, allocation.cut_at),
            client_received_bytes=allocation.client_received_bytes,
            client_sent_bytes=allocation.client_sent_bytes,
            peer_received_bytes=allocation.peer_received_bytes,
            peer_sent_bytes=allocation.peer_sent_bytes,
            peers=len(allocation.peers),
            client=address_show(allocation.client) if with_addresses else "",
            relayed=" ".join(address_show(found.sockaddr) for found in relayed)
            if with_addresses
            else "",
        )
