"""What running relays answer, over a list in Valkey (`relay.control.keys.REPLY`).

    {"node": "node-1", "boot": "5f…", "process": 0, "is_last": false,
     "left_off": 0, "sessions": [[17, "prj_…", …], …]}

An answer is one part or several, the last of which says so; parts are small, so that neither end is
held up by a long one. Addresses are in it only where they were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, NamedTuple

from relay.core.addresses import SockAddress

SESSIONS_PER_PART: Final = 200
PROJECTS_SHOWN: Final = 20
SESSIONS_MAX: Final = 20_000  # of one process; how many there are besides is said


class AnswerError(ValueError):
    """Not an answer of this release of the relay."""


class Origin(NamedTuple):
    """Who answers: one process of a relay."""

    node: str
    process: int
    boot: str

    def __str__(self) -> str:
        return f"{self.node} (process {self.process})" if self.process else self.node


class LiveSession(NamedTuple):
    """One allocation that lives.

    Attributes:
        node, boot, allocation: name it.
        project, credential: public ids.
        transport: between client and relay; protocol: between relay and peers.
        started_at, ends_at: unix seconds; it ends then unless it is refreshed.
        client_received_bytes and those after it: as in usage records.
        peers: how many it has exchanged data with.
        client, relayed: addresses; empty where nobody asked for them.
    """

    node: str
    boot: str
    allocation: int
    project: str
    credential: str
    transport: str
    protocol: str
    started_at: float
    ends_at: float
    client_received_bytes: int
    client_sent_bytes: int
    peer_received_bytes: int
    peer_sent_bytes: int
    peers: int
    client: str
    relayed: str

    @property
    def name(self) -> str:
        """What it is called: node/boot/allocation, as in the connection log."""
        return f"{self.node}/{self.boot}/{self.allocation}"


class LiveRefusal(NamedTuple):
    """One request that was refused of late, and why; `occurred_at` in unix seconds."""

    occurred_at: float
    project: str
    credential: str
    method: str
    code: int
    rule: str


@dataclass(frozen=True)
class RelayStatus:
    """How one process of a relay is.

    Attributes:
        started_at: unix seconds, like all times here.
        allocations: that live.
        ports_taken: relayed ports; more than allocations where some are reserved, or dual.
        closed_because: why it takes no new allocation; empty where it does.
        is_draining, drain_ends_at: whether it is drained, and when that ends what is left.
        drain_ended: how many sessions that has ended.
        configured_at: when the configuration that holds was taken over.
        configuration_refusal: why a later one was not; empty where there was none.
        refused: error responses by code; dropped: what was dropped, by reason. Since the start.
        not_media: packets that "media only" dropped, of the projects with most of them. Metrics
            do not say it, as none of their labels holds a project.
    """

    started_at: float
    allocations: int
    ports_taken: int
    closed_because: tuple[str, ...]
    is_draining: bool
    drain_ends_at: float | None
    drain_ended: int
    configured_at: float
    configuration_refusal: str
    refused: Mapping[str, int]
    dropped: Mapping[str, int]
    not_media: Mapping[str, int]


@dataclass(frozen=True)
class Done:
    """What became of something that a relay was told.

    Attributes:
        is_done: whether it did it.
        reason: why not, or a word about it.
        changed: what a reload has changed.
        allocations: that live now.
    """

    is_done: bool
    reason: str = ""
    changed: tuple[str, ...] = ()
    allocations: int = 0


# --- writing --------------------------------------------------------------------------------------
def sessions_part(
    sessions: Sequence[LiveSession], *, is_last: bool, left_off: int
) -> Mapping[str, object]:
    """Some sessions; `left_off`: in the last part, how many more there are than may be said."""
    return {
        "is_last": is_last,
        "left_off": left_off,
        "sessions": [session[2:] for session in sessions],
    }


def refusals_part(refusals: Sequence[LiveRefusal]) -> Mapping[str, object]:
    """Every refusal."""
    return {"is_last": True, "refusals": refusals}


def facts_part(facts: RelayStatus | Done) -> Mapping[str, object]:
    """The status of a relay, or what became of what it was told."""
    return {"is_last": True, "facts": asdict(facts)}


def address_show(address: SockAddress) -> str:
    """An address with its port, as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- reading --------------------------------------------------------------------------------------
Answer = Mapping[str, Any]  # JSON

_NUMBER: Final = (int, float)
_SESSION: Final = (int, str, str, str, str, *2 * (_NUMBER,), *5 * (int,), str, str)
_REFUSAL: Final = (_NUMBER, str, str, str, int, str)


def origin_read(answer: Answer) -> Origin:
    """Who sent a part.

    Raises:
        AnswerError: it does not say (so for those below, where it is something else).
    """
    return Origin(*_row([answer.get(name) for name in Origin._fields], (str, int, str)))


def is_last(answer: Answer) -> bool:
    """Whether no part follows."""
    return answer.get("is_last") is True


def sessions_read(origin: Origin, answer: Answer) -> tuple[list[LiveSession], int]:
    """The sessions of a part, and how many there are besides all parts."""
    rows, left_off = answer.get("sessions"), answer.get("left_off")
    if not isinstance(rows, list) or not isinstance(left_off, int):
        raise AnswerError
    named = origin.node, origin.boot
    return [LiveSession(*named, *_row(row, _SESSION)) for row in rows], left_off


def refusals_read(answer: Answer) -> list[LiveRefusal]:
    """The refusals of a part."""
    rows = answer.get("refusals")
    if not isinstance(rows, list):
        raise AnswerError
    return [LiveRefusal(*_row(row, _REFUSAL)) for row in rows]


def status_read(answer: Answer) -> RelayStatus:
    """The status of a relay."""
    facts = _facts(RelayStatus, answer)
    return RelayStatus(**{**facts, "closed_because": tuple(facts["closed_because"])})


def done_read(answer: Answer) -> Done:
    """What became of what a relay was told."""
    facts = _facts(Done, answer)
    return Done(**{**facts, "changed": tuple(facts["changed"])})


_FACTS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "started_at": _NUMBER,
    "allocations": int,
    "ports_taken": int,
    "closed_because": list,
    "is_draining": bool,
    "drain_ends_at": (*_NUMBER, type(None)),
    "drain_ended": int,
    "configured_at": _NUMBER,
    "configuration_refusal": str,
    "refused": dict,
    "dropped": dict,
    "not_media": dict,
    "is_done": bool,
    "reason": str,
    "changed": list,
}


def _facts(kind: type[RelayStatus] | type[Done], answer: Answer) -> dict[str, Any]:
    facts = answer.get("facts")
    names = {field.name for field in fields(kind)}
    if not isinstance(facts, dict) or facts.keys() != names:
        raise AnswerError
    if not all(isinstance(facts[name], _FACTS[name]) for name in names):
        raise AnswerError
    return facts


def _row(row: object, types: Sequence[type | tuple[type, ...]]) -> list[Any]:
    if not isinstance(row, list) or len(row) != len(types):
        raise AnswerError
    if not all(map(isinstance, row, types)):
        raise AnswerError
    return row
