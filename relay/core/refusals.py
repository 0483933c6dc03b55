"""Why was this call refused? Kept in memory for some minutes, for those who may know.

A client is told a number (RFC 8489 section 14.8); which rule or quota was behind it is nobody's
business but the operator's and the credential's owner's. So only requests whose password was right
are kept here, by project, and nothing of it is ever written down: strangers are a counter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from relay.core import stun
from relay.core.credentials import username_parse

KEPT_SECONDS = 900
PURGE_SECONDS = 60
KEPT_MAX = 20_000  # of all projects
LOOKED_AT_ONCE = 512

METHOD_NAMES = {
    stun.ALLOCATE: "Allocate",
    stun.REFRESH: "Refresh",
    stun.CREATE_PERMISSION: "CreatePermission",
    stun.CHANNEL_BIND: "ChannelBind",
    stun.CONNECT: "Connect",
    stun.CONNECTION_BIND: "ConnectionBind",
}
# Where the code itself says enough.
RULES = {
    400: "the request has no right form, or asks for what does not go together",
    405: "nothing can move here: mobility is off, or peers are reached over TCP",
    437: "there is no allocation on this five-tuple",
    440: "no relayed address of that family is configured here",
    441: "another username made the allocation on this five-tuple",
    442: "peers are reached over UDP; over TCP only where that is switched on, by clients that came"
    " over TCP or TLS, and in no project for media only",
    443: "the allocation has no relayed address of the peer's family",
    446: "there is a connection with that peer already",
    508: "no room is left for what was asked: ports, permissions, channels or peers",
}
ALLOCATION_EXISTS = "there is an allocation on this five-tuple already"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One request that was refused.

    Attributes:
        occurred_at: the time.
        project: whose credential it was.
        username: in whole.
        method: as the RFC calls it.
        code: what the client was told.
        rule: what the client was not told: the rule or the quota, in words.
    """

    occurred_at: float
    project: str
    username: str
    method: str
    code: int
    rule: str

    def is_about(self, label: str) -> bool:
        """Whether `label` is its username, its credential's id, or its customer's label."""
        return username_is_about(self.username, label)


class Refusals:
    """The latest refusals of each project.

    Attributes:
        count: how many are kept.
    """

    def __init__(self, per_project_max: int, projects_max: int, kept_max: int = KEPT_MAX) -> None:
        self.count = 0
        self._per_project_max = per_project_max
        self._projects_max = projects_max
        self._kept_max = kept_max
        self._by_project: dict[str, deque[Refusal]] = {}
        self._purge_at: float | None = None

    def keep(self, refusal: Refusal) -> None:
        """Keep one; the oldest of too many is forgotten, and the project that was quiet longest."""
        kept = self._by_project.pop(refusal.project, None)
        if kept is None:
            kept = deque()
            if len(self._by_project) >= self._projects_max:
                self.count -= len(self._by_project.pop(next(iter(self._by_project))))
        self._by_project[refusal.project] = kept
        kept.append(refusal)
        self.count += 1
        if len(kept) > self._per_project_max:
            kept.popleft()
            self.count -= 1
        if self.count > self._kept_max:
            self._forget_one()
        if self._purge_at is None:
            self._purge_at = refusal.occurred_at + PURGE_SECONDS

    def _forget_one(self) -> None:
        """Forget the oldest of the project that was quiet longest."""
        project, kept = next(iter(self._by_project.items()))
        kept.popleft()
        self.count -= 1
        if not kept:
            del self._by_project[project]

    def explain_steps(self, label: str, project: str | None, now: float) -> Iterator[list[Refusal]]:
        """What was refused to a username, credential id or label; the oldest first in a project.

        Each step looks at some hundred of those that there were at the first; between two of them
        others may have their turn.

        Args:
            label: which of the three it is does not matter.
            project: look in this project only, as its owner may; None is for the operator.
            now: the time.
        """
        self.purge(now)
        by_project = self._by_project
        looked_in = list(by_project) if project is None else [project]
        everything = [refusal for owner in looked_in for refusal in by_project.get(owner, ())]
        for start in range(0, len(everything), LOOKED_AT_ONCE):
            part = everything[start : start + LOOKED_AT_ONCE]
            yield [refusal for refusal in part if refusal.is_about(label)]

    def next_purge(self) -> float | None:
        """When `purge_if_due` should be called next; None where nothing is kept."""
        return self._purge_at

    def purge_if_due(self, now: float) -> None:
        """Forget what is too old, once a minute."""
        if self._purge_at is not None and self._purge_at <= now:
            self.purge(now)

    def purge(self, now: float) -> None:
        """Forget what is too old."""
        oldest = now - KEPT_SECONDS
        for project, kept in list(self._by_project.items()):
            while kept and kept[0].occurred_at < oldest:
                kept.popleft()
                self.count -= 1
            if not kept:
                del self._by_project[project]
        self._purge_at = now + PURGE_SECONDS if self._by_project else None


def rule_in_words(method: int, code: int, rule: str) -> str:
    """What is kept of a refusal that names no rule itself."""
    if rule:
        return rule
    if code == 437 and method == stun.ALLOCATE:
        return ALLOCATION_EXISTS
    return RULES.get(code, "")


def username_is_about(username: str, label: str) -> bool:
    """Whether `label` is a username, its credential's id, or its customer's label."""
    parsed = username_parse(username)
    names = (username,) if parsed is None else (username, *parsed[2:])
    return bool(label) and label in names
