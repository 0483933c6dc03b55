"""The metrics: their names, their labels, and every value that a label can have.

No label's value comes from a client: the number of series is the same for one user and a million.
docs/operating.md has the same table for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from relay.core import error_codes, stun
from relay.core.addresses import FAMILY_IPV4, FAMILY_IPV6
from relay.core.drops import DROP_REASONS
from relay.core.effects import AuthenticationOutcome

PREFIX: Final = "mindmore_relay_"

TRANSPORTS: Final = ("udp", "tcp", "tls", "dtls")
FAMILIES: Final = {FAMILY_IPV4: "ipv4", FAMILY_IPV6: "ipv6"}
CONNECTIONS: Final = ("tcp", "tls", "dtls", "opening")
BYTE_DIRECTIONS: Final = ("from_client", "to_client", "from_peer", "to_peer")
PACKET_DIRECTIONS: Final = ("from_client", "from_peer")
METHODS: Final = {
    stun.BINDING: "binding",
    stun.ALLOCATE: "allocate",
    stun.REFRESH: "refresh",
    stun.SEND: "send",
    stun.CREATE_PERMISSION: "create_permission",
    stun.CHANNEL_BIND: "channel_bind",
    stun.CONNECT: "connect",
    stun.CONNECTION_BIND: "connection_bind",
}
REQUESTS: Final = tuple(name for method, name in METHODS.items() if method != stun.SEND)
OTHER: Final = "other"
CLASSES: Final = {
    stun.REQUEST: "request",
    stun.INDICATION: "indication",
    stun.SUCCESS: "success",
    stun.ERROR: "error",
}
ERROR_CODES: Final = tuple(
    sorted(value for value in vars(error_codes).values() if isinstance(value, int))
)

Labels = tuple[str, ...]
Values = dict[str, dict[Labels, float]]


@dataclass(frozen=True)
class Metric:
    """One metric; each has the label `process` besides its own."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: Labels
    meaning: str


def ours(name: str) -> str:
    """The full name of a metric of this program's own."""
    return PREFIX + name


def label(words: str) -> str:
    """A reason in words as the value of a label."""
    return words.replace(" ", "_")


METRICS: Final = (
    Metric(ours("up"), "gauge", (), "1 where the process answered this scrape"),
    Metric(ours("build_info"), "gauge", ("version", "python"), "1; what runs"),
    Metric(
        ours("draining"),
        "gauge",
        (),
        "1 while it takes no new allocations, as it was told to drain",
    ),
    Metric(
        ours("cut_off"), "gauge", (), "1 while new allocations are refused for want of its control"
    ),
    Metric(ours("allocations"), "gauge", ("transport", "family"), "Allocations that live"),
    Metric(
        ours("allocations_started_total"),
        "counter",
        ("transport", "family"),
        "Allocations since the start",
    ),
    Metric(
        ours("relayed_bytes_total"),
        "counter",
        ("direction", "transport", "family"),
        "Bytes of allocations, as they are metered; with framing between client and relay",
    ),
    Metric(
        ours("relayed_packets_total"),
        "counter",
        ("direction", "transport", "family"),
        "Packets of data that passed every check; TCP allocations have none",
    ),
    Metric(
        ours("messages_received_total"),
        "counter",
        ("method", "class"),
        "STUN messages of clients, retransmissions included",
    ),
    Metric(ours("success_responses_total"), "counter", ("method",), "Success responses"),
    Metric(ours("error_responses_total"), "counter", ("method", "code"), "Error responses"),
    Metric(
        ours("authentications_total"),
        "counter",
        ("outcome",),
        "First requests of allocations and refused credentials, by how they were judged",
    ),
    Metric(ours("dropped_total"), "counter", ("reason",), "Packets and connections dropped"),
    Metric(ours("ports"), "gauge", ("family", "state"), "Relayed ports, in use or free"),
    Metric(ours("client_connections"), "gauge", ("transport",), "Connections of clients"),
    Metric(ours("peer_connections"), "gauge", (), "TCP connections with peers (RFC 6062)"),
    Metric(ours("journal_writable"), "gauge", (), "1 where the last write succeeded"),
    Metric(ours("journal_records_waiting"), "gauge", (), "Usage records that are not on disk yet"),
    Metric(
        ours("journal_records_lost_total"),
        "counter",
        (),
        "Usage records that found no room while the disk failed",
    ),
    Metric(
        ours("journal_sync_age_seconds"), "gauge", (), "Since everything was last found on disk"
    ),
    Metric(
        ours("event_loop_longest_block_seconds"),
        "gauge",
        (),
        "The longest time, of the last one to two minutes, for which nothing was served",
    ),
    Metric(ours("event_loop_blocks_total"), "counter", (), "How often that was over 50 ms"),
    Metric("process_start_time_seconds", "gauge", (), "When the process began, unix seconds"),
    Metric("process_resident_memory_bytes", "gauge", (), "Memory in use"),
    Metric("process_cpu_seconds_total", "counter", (), "CPU time"),
    Metric("process_open_fds", "gauge", (), "Open files and sockets"),
    Metric("process_max_fds", "gauge", (), "and how many there may be"),
)


def zeros() -> Values:
    """Every series whose labels are known beforehand, at 0: rates are right from the first one."""
    ways = list(product(TRANSPORTS, FAMILIES.values()))
    series: dict[str, list[Labels]] = {
        "allocations": [*ways],
        "allocations_started_total": [*ways],
        "relayed_bytes_total": [(to, *way) for to in BYTE_DIRECTIONS for way in ways],
        "relayed_packets_total": [(to, *way) for to in PACKET_DIRECTIONS for way in ways],
        "messages_received_total": [*product(REQUESTS, ["request"]), ("send", "indication")],
        "success_responses_total": [(name,) for name in REQUESTS],
        "error_responses_total": [*product(REQUESTS, map(str, ERROR_CODES))],
        "authentications_total": [(outcome.value,) for outcome in AuthenticationOutcome],
        "dropped_total": [(label(reason),) for reason in (*DROP_REASONS, OTHER)],
        "client_connections": [(transport,) for transport in CONNECTIONS],
    }
    return {ours(name): dict.fromkeys(labels, 0.0) for name, labels in series.items()}
