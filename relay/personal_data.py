"""What the relay holds about people: the connection logs, in the database and on their way there.

Quarantined records are kept without their addresses; usage by the hour never had any.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet
from psycopg2.sql import SQL, Identifier

from privacy.registry import Category, Purpose, registry
from privacy.retention.classes import BILLING, CONNECTION_LOGS
from privacy.retention.engine import Holder, Part, holders
from privacy.retention.holders import partition_holder, row_holder
from relay.metering.journal import boot_directories, segment_lines
from relay.models import CredentialOverride, EndedSession, QuarantinedRecord
from relay.publishing import overdue_count, overdue_remove

TIMES = "session start/end timestamps"
ADDRESSES = "client & peer IP addresses and ports"
PROTOCOL = "protocol type"
BYTES = "amount of relayed data"
# The usage records and their journal: finer than what the founding policy names (ADR 0005).
STEPS = "when and how much was relayed, in steps of five seconds"
MOVES = "when the address of a client changed during a session"
EVENTS = "authentication events"
JOURNAL = "files: the relay's journal"
LOG_PURPOSES = (Purpose.PROVIDE, Purpose.SECURITY, Purpose.BILLING)
RECORD_KEY = "which record of which relay it is"
POINTER = "points at a row of ours"
ROW_KEY = "row key"
LIMIT = "limit that the customer set"
VERSION = "which relays have heard of it"
NEEDED_UNTIL = "when the row goes"
ANNOUNCED = "cache: usernames that clients send as a hash"
ASKED = "cache: what relays are asked, and answer"
COUNTERS = (
    "client_received_bytes",
    "client_sent_bytes",
    "peer_received_bytes",
    "peer_sent_bytes",
)
TOTALS = tuple(name.replace("_bytes", "_total_bytes") for name in COUNTERS)
KEY = dict.fromkeys(("node", "boot", "allocation"), RECORD_KEY)

registry.register_service("TURN and STUN relay")

# --- connection logs ------------------------------------------------------------------------------
registry.register(
    "relay.Session",
    category=Category.CONNECTION_LOGS,
    purposes=LOG_PURPOSES,
    retention=CONNECTION_LOGS,
    personal={
        "started_at": TIMES,
        "ended_at": TIMES,
        "client_address": ADDRESSES,
        "client_port": ADDRESSES,
        "transport": PROTOCOL,
        **dict.fromkeys(COUNTERS, BYTES),
    },
    technical={**KEY, "project": POINTER},
)
registry.register(
    "relay.PeerFlow",
    category=Category.CONNECTION_LOGS,
    purposes=LOG_PURPOSES,
    retention=CONNECTION_LOGS,
    personal={"session_started_at": TIMES, "peer_address": ADDRESSES, "peer_port": ADDRESSES},
    technical=KEY,
)
registry.register(
    "relay.SessionMove",
    category=Category.CONNECTION_LOGS,
    purposes=LOG_PURPOSES,
    retention=CONNECTION_LOGS,
    personal={
        "session_started_at": TIMES,
        "moved_at": MOVES,
        "client_address": ADDRESSES,
        "client_port": ADDRESSES,
        "transport": PROTOCOL,
    },
    technical={**KEY, "number": RECORD_KEY},
)
registry.register(
    "relay.AuthenticationEvent",
    category=Category.CONNECTION_LOGS,
    purposes=LOG_PURPOSES,
    retention=CONNECTION_LOGS,
    personal={
        "occurred_at": EVENTS,
        "outcome": EVENTS,
        "client_address": ADDRESSES,
        "client_port": ADDRESSES,
        "transport": PROTOCOL,
    },
    technical={
        "node": RECORD_KEY,
        "boot": RECORD_KEY,
        "number": RECORD_KEY,
        "project": POINTER,
    },
)
registry.register(
    "relay.UsageRecord",
    category=Category.CONNECTION_LOGS,
    purposes=LOG_PURPOSES,
    retention=CONNECTION_LOGS,
    personal={
        "session_started_at": TIMES,
        **dict.fromkeys(("interval_started_at", "interval_ended_at", *COUNTERS, *TOTALS), STEPS),
    },
    technical={
        **KEY,
        "sequence": RECORD_KEY,
        "project": POINTER,
        "is_last": "whether more records follow",
        "is_rolled_up": "whether it is in the usage by the hour",
    },
)
registry.register(
    "relay.QuarantinedRecord",
    category=Category.CONNECTION_LOGS,
    purposes=LOG_PURPOSES,
    retention=CONNECTION_LOGS,
    personal={"payload": STEPS},
    technical={
        "id": "row key",
        "digest": "hash of the record without its addresses",
        "reason": "why it was refused",
        "node": RECORD_KEY,
        "boot": RECORD_KEY,
        "received_at": "time of the row, not of a person's doing",
    },
)
registry.register_place(
    JOURNAL,
    category=Category.CONNECTION_LOGS,
    purposes=LOG_PURPOSES,
    retention=CONNECTION_LOGS,
    personal={
        "times": TIMES,
        "addresses": ADDRESSES,
        "transport": PROTOCOL,
        "intervals and their counters": STEPS,
        "moves to another address": MOVES,
        "authentication": EVENTS,
    },
)


# --- what relays are told and asked (only the two places in the cache name people) ----------------
registry.register_impersonal("relay.ControlVersion", because="counts changes")
registry.register_technical(
    "relay.ProjectLimit",
    {
        "id": ROW_KEY,
        "project": POINTER,
        "version": VERSION,
        "is_own": LIMIT,
        **dict.fromkeys(("on_expiry", "allocations_max", "bitrate_bps_max", "media_only"), LIMIT),
    },
)
registry.register_technical(
    "relay.CredentialOverride",
    {
        "id": ROW_KEY,
        "project": POINTER,
        "credential": "random name; whom it was given, only the customer knows",
        "version": VERSION,
        "until": NEEDED_UNTIL,
        "revoked_at": "time of the customer's word about the credential",
        "expires_at": LIMIT,
        **dict.fromkeys(("on_expiry", "allocations_max", "bitrate_bps_max"), LIMIT),
    },
)
registry.register_technical(
    "relay.EndedSession",
    {"id": ROW_KEY, **KEY, "version": VERSION, "until": NEEDED_UNTIL},
)
registry.register_place(
    ANNOUNCED,
    category=Category.CONNECTION_LOGS,
    purposes=(Purpose.PROVIDE,),
    retention=CONNECTION_LOGS,
    personal={"username": "usernames of clients that hide them, until they expire"},
)
# Questions are messages in the stream, and go with it; answers end by themselves after ten seconds.
registry.register_place(
    ASKED,
    category=Category.CONNECTION_LOGS,
    purposes=(Purpose.PROVIDE, Purpose.SECURITY),
    retention=CONNECTION_LOGS,
    personal={
        "label in a question": "usernames or labels that live sessions are looked for by",
        "times": TIMES,
        "addresses": ADDRESSES,
        "transport": PROTOCOL,
        "counters": BYTES,
        "refusals": EVENTS,
    },
)

# --- kept with the invoices -----------------------------------------------------------------------
registry.register(
    "relay.UsageHour",
    category=Category.CONNECTION_LOGS,
    purposes=(Purpose.BILLING, Purpose.LEGAL),
    retention=BILLING,
    personal=dict.fromkeys(COUNTERS, BYTES),
    technical={
        "id": ROW_KEY,
        "project": POINTER,
        "hour": "a full hour, not the time of a person's doing",
        "is_rated": "whether billing has seen it",
    },
)


# --- what ends by the calendar --------------------------------------------------------------------
def usage_not_rolled_up(part: Part) -> str | None:
    """Usage that is on no bill yet stays (it holds no address) until the next roll-up."""
    query = SQL("SELECT EXISTS (SELECT FROM {} WHERE NOT is_rolled_up)")
    with connection.cursor() as cursor:
        cursor.execute(query.format(Identifier(part.name)).as_string(cursor.cursor))
        (found,) = cursor.fetchone()
    return "holds usage that is not billed yet" if found else None


def quarantine_due(now: datetime) -> QuerySet[QuarantinedRecord]:
    """Refused records older than the period."""
    assert CONNECTION_LOGS.period is not None
    return QuarantinedRecord.objects.filter(received_at__lt=now - CONNECTION_LOGS.period)


def journal_due(now: datetime) -> Sequence[Part]:
    """Segments that nobody shipped in all the period: they hold addresses, so they go."""
    assert CONNECTION_LOGS.period is not None
    before = now - CONNECTION_LOGS.period
    directory = settings.TURN_JOURNAL_DIRECTORY
    parts = []
    for boot in boot_directories(directory):
        for segment in boot.segments():
            try:
                if datetime.fromtimestamp(segment.stat().st_mtime, UTC) < before:
                    name = str(segment.relative_to(directory))
                    parts.append(Part(name, before, len(segment_lines(segment))))
            except FileNotFoundError:  # shipped meanwhile
                continue
    return parts


def journal_purge(part: Part) -> int:
    """Remove one segment."""
    segment: Path = settings.TURN_JOURNAL_DIRECTORY / part.name
    segment.unlink(missing_ok=True)
    return part.rows


def overrides_due(now: datetime) -> QuerySet[CredentialOverride]:
    """Credentials that have ended whatever was said of them."""
    return CredentialOverride.objects.filter(until__lt=now)


def ended_sessions_due(now: datetime) -> QuerySet[EndedSession]:
    """Sessions of which every relay has heard that they are to end."""
    return EndedSession.objects.filter(until__lt=now)


def announced_due(now: datetime) -> Sequence[Part]:
    """Announced usernames that have expired, and messages that every relay has read."""
    rows = overdue_count(unix_now=now.timestamp())
    return [Part("announced usernames", now, rows)] if rows else []


def announced_purge(part: Part) -> int:
    """Remove them."""
    return overdue_remove(unix_now=part.before.timestamp())


for name, table, model in (
    ("relay.sessions", "relay_session", "relay.Session"),
    ("relay.peer_flows", "relay_peerflow", "relay.PeerFlow"),
    ("relay.session_moves", "relay_sessionmove", "relay.SessionMove"),
    ("relay.authentication_events", "relay_authenticationevent", "relay.AuthenticationEvent"),
    ("relay.usage_records", "relay_usagerecord", "relay.UsageRecord"),
):
    holders.register(partition_holder(name, CONNECTION_LOGS, table=table, holds=[model]))
holders.veto("relay.usage_records", usage_not_rolled_up)
holders.register(
    row_holder(
        "relay.quarantine", CONNECTION_LOGS, due=quarantine_due, holds=["relay.QuarantinedRecord"]
    )
)
holders.register(Holder("relay.journal", CONNECTION_LOGS, (JOURNAL,), journal_due, journal_purge))
holders.register(
    row_holder(
        "relay.overrides", CONNECTION_LOGS, due=overrides_due, holds=["relay.CredentialOverride"]
    )
)
holders.register(
    row_holder(
        "relay.ended_sessions",
        CONNECTION_LOGS,
        due=ended_sessions_due,
        holds=["relay.EndedSession"],
    )
)
holders.register(
    Holder("relay.announced", CONNECTION_LOGS, (ANNOUNCED, ASKED), announced_due, announced_purge)
)
