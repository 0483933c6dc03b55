"""What the relay writes down: one JSON object per line of the journal.

    {"record":"session", "node", "boot", "allocation", "started_at", "project",
     "client_address", "client_port", "transport", "authentication"}
    {"record":"usage", "node", "boot", "allocation", "sequence", "project", "session_started_at",
     "interval_started_at", "interval_ended_at",
     "client_received", "client_sent", "peer_received", "peer_sent",        bytes of the interval
     "client_received_total", "client_sent_total", "peer_received_total", "peer_sent_total",
     "peers": [[address, port], ...],                           those first seen in the interval
     "ended": true on the last record of an allocation}
    {"record":"move", "node", "boot", "allocation", "number", "project", "session_started_at",
     "moved_at", "client_address", "client_port", "transport"}
    {"record":"authentication", "node", "boot", "number", "occurred_at", "project" or null,
     "client_address", "client_port", "transport", "outcome"}

A session is known by (node, boot, allocation), a usage record by that and its sequence, which
counts 1, 2, 3 ... per allocation, a move to another address of the client by that and its number,
which counts likewise, an authentication event by (node, boot, number). A session begins with an
authentication: its record stands for that event too, whose number it names. Times are unix
microseconds here, and unix seconds in the records. Counters are bytes: on the client's side with
STUN and ChannelData framing, on the peers' side data only; received and sent are the relay's view.

The records are named tuples, not dataclasses: immutable and slotted just the same, and made in
0.3 us instead of 2, which counts where every allocation of a busy relay writes three of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from json.encoder import encode_basestring_ascii as quote
from typing import Any, Final, NamedTuple

TRANSPORTS: Final = frozenset({"udp", "tcp", "tls", "dtls"})
COUNT_MAX: Final = 2**53 - 1  # what every JSON reader holds exactly: 9 petabytes
PORT_MAX: Final = 65535
ACCEPTED: Final = "accepted"
MICROSECONDS: Final = 1_000_000  # of a second
MICROSECONDS_MAX: Final = 253_402_300_799 * MICROSECONDS  # the end of the year 9999

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OUTCOME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


class RecordError(ValueError):
    """A line of the journal that is no record; the message names the field, never its value."""


class SessionRecord(NamedTuple):
    """An allocation began: its user was accepted, which is the event `authentication`."""

    node: str
    boot: str
    allocation: int
    started_at: float
    project: str
    client_address: str
    client_port: int
    transport: str
    authentication: int

    @property
    def event(self) -> AuthenticationRecord:
        """The authentication that it began with."""
        return AuthenticationRecord(
            node=self.node,
            boot=self.boot,
            number=self.authentication,
            occurred_at=self.started_at,
            project=self.project,
            client_address=self.client_address,
            client_port=self.client_port,
            transport=self.transport,
            outcome=ACCEPTED,
        )


class UsageRecord(NamedTuple):
    """What one allocation relayed in one interval, and since it began (the totals)."""

    node: str
    boot: str
    allocation: int
    sequence: int
    project: str
    session_started_at: float
    interval_started_at: float
    interval_ended_at: float
    client_received: int
    client_sent: int
    peer_received: int
    peer_sent: int
    client_received_total: int
    client_sent_total: int
    peer_received_total: int
    peer_sent_total: int
    peers: tuple[tuple[str, int], ...]
    ended: bool


class MoveRecord(NamedTuple):
    """The client of an allocation has another address from now on (RFC 8016)."""

    node: str
    boot: str
    allocation: int
    number: int
    project: str
    session_started_at: float
    moved_at: float
    client_address: str
    client_port: int
    transport: str


class AuthenticationRecord(NamedTuple):
    """Somebody proved who he is, or failed to."""

    node: str
    boot: str
    number: int
    occurred_at: float
    project: str | None
    client_address: str
    client_port: int
    transport: str
    outcome: str


Record = SessionRecord | UsageRecord | MoveRecord | AuthenticationRecord


def record_encode(record: Record) -> bytes:
    """One line of the journal, line feed included; what `record_decode` reads."""
    if isinstance(record, UsageRecord):
        return _usage_encode(record)
    if isinstance(record, SessionRecord):
        return (
            f'{{"record":"session","node":{quote(record.node)},"boot":{quote(record.boot)}'
            f',"allocation":{record.allocation},"started_at":{_microseconds(record.started_at)}'
            f',"project":{quote(record.project)},"client_address":{quote(record.client_address)}'
            f',"client_port":{record.client_port},"transport":{quote(record.transport)}'
            f',"authentication":{record.authentication}}}\n'
        ).encode()
    if isinstance(record, MoveRecord):
        return (
            f'{{"record":"move","node":{quote(record.node)},"boot":{quote(record.boot)}'
            f',"allocation":{record.allocation},"number":{record.number}'
            f',"project":{quote(record.project)}'
            f',"session_started_at":{_microseconds(record.session_started_at)}'
            f',"moved_at":{_microseconds(record.moved_at)},"client_address":{quote(record.client_address)}'
            f',"client_port":{record.client_port},"transport":{quote(record.transport)}}}\n'
        ).encode()
    project = "null" if record.project is None else quote(record.project)
    return (
        f'{{"record":"authentication","node":{quote(record.node)},"boot":{quote(record.boot)}'
        f',"number":{record.number},"occurred_at":{_microseconds(record.occurred_at)},"project":{project}'
        f',"client_address":{quote(record.client_address)},"client_port":{record.client_port}'
        f',"transport":{quote(record.transport)},"outcome":{quote(record.outcome)}}}\n'
    ).encode()


def _usage_encode(record: UsageRecord) -> bytes:
    peers = ",".join([f"[{quote(address)},{port}]" for address, port in record.peers])
    return (
        f'{{"record":"usage","node":{quote(record.node)},"boot":{quote(record.boot)}'
        f',"allocation":{record.allocation},"sequence":{record.sequence}'
        f',"project":{quote(record.project)},"session_started_at":{_microseconds(record.session_started_at)}'
        f',"interval_started_at":{_microseconds(record.interval_started_at)}'
        f',"interval_ended_at":{_microseconds(record.interval_ended_at)}'
        f',"client_received":{record.client_received},"client_sent":{record.client_sent}'
        f',"peer_received":{record.peer_received},"peer_sent":{record.peer_sent}'
        f',"client_received_total":{record.client_received_total}'
        f',"client_sent_total":{record.client_sent_total}'
        f',"peer_received_total":{record.peer_received_total}'
        f',"peer_sent_total":{record.peer_sent_total}'
        f',"peers":[{peers}],"ended":{"true" if record.ended else "false"}}}\n'
    ).encode()


def record_decode(line: bytes) -> Record:
    """Read one line of the journal.

    Raises:
        RecordError: not UTF-8 or JSON, another kind of record, a field missing, unknown or out of
            its range, or fields that contradict each other.
    """
    try:
        fields = json.loads(line.decode())
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are such
        raise RecordError("not a line of JSON") from None
    except RecursionError:
        raise RecordError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise RecordError("not a JSON object")
    kind = fields.pop("record", None)
    if kind == "usage":
        return _usage_check(UsageRecord._make(_fields_check(fields, _USAGE)))
    if kind == "session":
        return SessionRecord._make(_fields_check(fields, _SESSION))
    if kind == "move":
        return _move_check(MoveRecord._make(_fields_check(fields, _MOVE)))
    if kind == "authentication":
        return AuthenticationRecord._make(_fields_check(fields, _AUTHENTICATION))
    raise RecordError("record is none of session, usage, move, authentication")


def _fields_check(
    fields: Mapping[str, object], checks: Mapping[str, Callable[[object], object]]
) -> list[Any]:
    """The values of a record, in its order."""
    if fields.keys() != checks.keys():
        missing = sorted(checks.keys() - fields.keys())
        raise RecordError(f"{missing[0]} is missing" if missing else "a field too many")
    values: list[Any] = []
    for name, check in checks.items():
        try:
            values.append(check(fields[name]))
        except (ValueError, TypeError, OverflowError):
            raise RecordError(f"{name} is out of range") from None
    return values


def _usage_check(record: UsageRecord) -> UsageRecord:
    if record.interval_ended_at < record.interval_started_at:
        raise RecordError("interval_ended_at is before interval_started_at")
    if record.interval_started_at < record.session_started_at:
        raise RecordError("interval_started_at is before session_started_at")
    if (
        record.client_received > record.client_received_total
        or record.client_sent > record.client_sent_total
        or record.peer_received > record.peer_received_total
        or record.peer_sent > record.peer_sent_total
    ):
        raise RecordError("an interval holds more bytes than the total")
    return record


def _move_check(record: MoveRecord) -> MoveRecord:
    if record.moved_at < record.session_started_at:
        raise RecordError("moved_at is before session_started_at")
    return record


def _name(value: object) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ValueError


def _name_or_none(value: object) -> str | None:
    return None if value is None else _name(value)


def _outcome(value: object) -> str:
    if isinstance(value, str) and _OUTCOME.fullmatch(value):
        return value
    raise ValueError


def _transport(value: object) -> str:
    if isinstance(value, str) and value in TRANSPORTS:
        return value
    raise ValueError


def _address(value: object) -> str:
    if isinstance(value, str) and "%" not in value:
        return str(ip_address(value))
    raise ValueError


def _count(value: object) -> int:
    if type(value) is int and 0 <= value <= COUNT_MAX:
        return value
    raise ValueError


def _sequence(value: object) -> int:
    if type(value) is int and 1 <= value <= COUNT_MAX:
        return value
    raise ValueError


def _port(value: object) -> int:
    if type(value) is int and 0 <= value <= PORT_MAX:
        return value
    raise ValueError


def _seconds(value: object) -> float:
    if type(value) is int and 0 <= value <= MICROSECONDS_MAX:
        return value / MICROSECONDS
    raise ValueError


def _microseconds(seconds: float) -> int:
    return round(seconds * MICROSECONDS)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _peers(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple((_address(address), _port(port)) for address, port in value)


# In the order of the records' fields.
_SESSION: Final = {
    "node": _name,
    "boot": _name,
    "allocation": _count,
    "started_at": _seconds,
    "project": _name,
    "client_address": _address,
    "client_port": _port,
    "transport": _transport,
    "authentication": _sequence,
}
_USAGE: Final = {
    "node": _name,
    "boot": _name,
    "allocation": _count,
    "sequence": _sequence,
    "project": _name,
    "session_started_at": _seconds,
    "interval_started_at": _seconds,
    "interval_ended_at": _seconds,
    "client_received": _count,
    "client_sent": _count,
    "peer_received": _count,
    "peer_sent": _count,
    "client_received_total": _count,
    "client_sent_total": _count,
    "peer_received_total": _count,
    "peer_sent_total": _count,
    "peers": _peers,
    "ended": _flag,
}
_MOVE: Final = {
    "node": _name,
    "boot": _name,
    "allocation": _count,
    "number": _sequence,
    "project": _name,
    "session_started_at": _seconds,
    "moved_at": _seconds,
    "client_address": _address,
    "client_port": _port,
    "transport": _transport,
}
_AUTHENTICATION: Final = {
    "node": _name,
    "boot": _name,
    "number": _count,
    "occurred_at": _seconds,
    "project": _name_or_none,
    "client_address": _address,
    "client_port": _port,
    "transport": _transport,
    "outcome": _outcome,
}
