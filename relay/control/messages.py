"""What goes over the control channel: one JSON object for each message, and nothing else passes.

    {"kind": "credential_revoke", "version": 7, "project": "prj_…", "credential": "crd_…", …}

A message says what holds, not by how much something changed, so that it may come twice. What the
database keeps has the version of its row (`relay.control.ledger`); the rest, which is asked or said
once, has none.

Who may write into Valkey may control the relays. All the same a message is taken only where every
member is there, has its type and its bounds, and nothing else is: what came from another release
or from a mistake is counted and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Final, TypeVar

from relay.core.credentials import USERNAME_LENGTH_MAX
from relay.core.limits import OnExpiry, ProjectLimits

MESSAGE_BYTES_MAX: Final = 4096
NAME_LENGTH_MAX: Final = 64
SECONDS_MAX: Final = 10**11
COUNT_MAX: Final = 2**53
REPLY_LENGTH: Final = 32

Kind = TypeVar("Kind")


class MessageError(ValueError):
    """Not a message; its text says what is wrong, and nothing of what was in it."""


# --- what holds (the database keeps it) -----------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CredentialRevoke:
    """`Control.credential_revoke`; `until` (here and below): when it may be forgotten."""

    project: str
    credential: str
    until: float


@dataclass(frozen=True, slots=True)
class CredentialExtend:
    """`Control.credential_extend`."""

    project: str
    credential: str
    expires_at: float
    until: float


@dataclass(frozen=True, slots=True)
class CredentialLimit:
    """`Control.credential_limit`; None is no limit of its own."""

    project: str
    credential: str
    until: float
    on_expiry: OnExpiry | None = None
    allocations_max: int | None = None
    bitrate_bps_max: int | None = None


@dataclass(frozen=True, slots=True)
class ProjectLimitsSet:
    """`Control.project_limits_set`; None: those of the relay's settings."""

    project: str
    limits: ProjectLimits | None


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """End one allocation of one start of one relay; `reply_to` as in `Drain`."""

    node: str
    boot: str
    allocation: int
    reply_to: str | None = None


# --- what is said once ----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class UsernameAnnounce:
    """A username whose client will send its hash."""

    username: str
    until: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no new allocation, end when the last is gone, or at `deadline` (unix seconds).

    `node` (here and below): None is for every relay. `reply_to`: see `SessionsAsk`; None: nobody
    waits for an answer.
    """

    node: str | None = None
    deadline: float | None = None
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Undrain:
    """Take new allocations again."""

    node: str | None = None
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Reload:
    """Read the configuration again."""

    node: str | None = None
    reply_to: str | None = None


# --- what is asked --------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SessionsAsk:
    """Which sessions live, of one project or all.

    `reply_to` (here and below) is the 32 hexadecimal digits that name the list of answers. `label`:
    those of one username, credential id or label. Addresses are said where they are asked for.
    """

    reply_to: str
    project: str | None = None
    label: str | None = None
    with_addresses: bool = False


@dataclass(frozen=True, slots=True)
class ExplainAsk:
    """Why requests with a username, credential id or label were refused."""

    reply_to: str
    label: str
    project: str | None = None


@dataclass(frozen=True, slots=True)
class StatusAsk:
    """How a relay is."""

    reply_to: str


ControlMessage = (
    CredentialRevoke
    | CredentialExtend
    | CredentialLimit
    | ProjectLimitsSet
    | SessionEnd
    | UsernameAnnounce
    | Drain
    | Undrain
    | Reload
    | SessionsAsk
    | ExplainAsk
    | StatusAsk
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message, and the version of the row that says so; None where no row does."""

    message: ControlMessage
    version: int | None = None


# --- reading --------------------------------------------------------------------------------------
def _text(value: object, length_max: int = NAME_LENGTH_MAX) -> str:
    if not isinstance(value, str) or not 0 < len(value.encode()) <= length_max:
        raise ValueError
    if not value.isprintable():
        raise ValueError
    return value


def _username(value: object) -> str:
    return _text(value, USERNAME_LENGTH_MAX)


def _reply(value: object) -> str:
    if not isinstance(value, str) or len(value) != REPLY_LENGTH or set(value) - set(HEXADECIMAL):
        raise ValueError
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    if not 0 <= value <= SECONDS_MAX:  # neither for infinity nor for what is not a number
        raise ValueError
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise ValueError
    return value


def _rate(value: object) -> int:
    rate = _count(value)
    if not rate:
        raise ValueError
    return rate


def _on_expiry(value: object) -> OnExpiry:
    return OnExpiry(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _limits(value: object) -> ProjectLimits:
    return _members(ProjectLimits, value)


def _or_none(read: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else read(value)


HEXADECIMAL: Final = "0123456789abcdef"
# What each member is, by its name; which members there are say the classes.
READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "project": _text,
    "credential": _text,
    "until": _seconds,
    "expires_at": _seconds,
    "on_expiry": _on_expiry,
    "allocations_max": _or_none(_count),
    "bitrate_bps_max": _or_none(_rate),
    "media_only": _flag,
    "limits": _or_none(_limits),
    "node": _text,
    "boot": _text,
    "allocation": _count,
    "username": _username,
    "label": _username,
    "with_addresses": _flag,
    "deadline": _or_none(_seconds),
    "reply_to": _reply,
}
MAY_BE_NONE: Final = frozenset(
    {
        (CredentialLimit, "on_expiry"),
        *((kind, "node") for kind in (Drain, Undrain, Reload)),
        *((kind, "reply_to") for kind in (SessionEnd, Drain, Undrain, Reload)),
        (SessionsAsk, "label"),
        *((kind, "project") for kind in (SessionsAsk, ExplainAsk)),
    }
)
KINDS: Final[Mapping[str, type[ControlMessage]]] = {
    "credential_revoke": CredentialRevoke,
    "credential_extend": CredentialExtend,
    "credential_limit": CredentialLimit,
    "project_limits_set": ProjectLimitsSet,
    "session_end": SessionEnd,
    "username_announce": UsernameAnnounce,
    "drain": Drain,
    "undrain": Undrain,
    "reload": Reload,
    "sessions_ask": SessionsAsk,
    "explain_ask": ExplainAsk,
    "status_ask": StatusAsk,
}
NAMES: Final = {message: kind for kind, message in KINDS.items()}


def message_encode(message: ControlMessage, version: int | None = None) -> bytes:
    """One message as it goes over the channel.

    Args:
        message: what is said.
        version: of the row that says so, where one does.
    """
    document = {"kind": NAMES[type(message)], "version": version, **_plain(message)}
    return json.dumps(document, separators=(",", ":")).encode()


def _plain(value: object) -> dict[str, object]:
    plain: dict[str, object] = {}
    for name in _names(type(value)):
        member = getattr(value, name)
        if isinstance(member, ProjectLimits):
            member = _plain(member)
        plain[name] = member.value if isinstance(member, OnExpiry) else member
    return plain


def message_decode(data: bytes) -> Envelope:
    """Read what `message_encode` wrote.

    Raises:
        MessageError: it is something else, be it in one member only.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise MessageError("longer than a message may be")
    try:
        document = json.loads(data, object_pairs_hook=_unrepeated)
    except (ValueError, RecursionError):
        raise MessageError("not JSON, or a name is there twice") from None
    if not isinstance(document, dict):
        raise MessageError("not an object")
    kind = document.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise MessageError("of no known kind")
    version = document.pop("version", "missing")
    try:
        number = None if version is None else _count(version)
        return Envelope(_members(KINDS[kind], document), number)
    except ValueError:
        raise MessageError(f"not a {kind}: a member is missing, unknown or out of bounds") from None


def announcement_read(member: bytes, until: float) -> UsernameAnnounce:
    """An announced username as Valkey keeps it for relays that start later.

    Raises:
        MessageError: it is something else.
    """
    try:
        return UsernameAnnounce(_username(member.decode()), _seconds(until))
    except ValueError:
        raise MessageError("not a username, or not a time") from None


def _unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _members(kind: type[Kind], value: object) -> Kind:
    names = _names(kind)
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError
    return kind(**{name: _member(kind, name, value[name]) for name in names})


def _member(kind: type, name: str, value: object) -> object:
    if value is None and (kind, name) in MAY_BE_NONE:
        return None
    return READERS[name](value)


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
