"""What is read of the relay's books: sessions of a project, usage of an organisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from django.db.models import Count, F, Q, Sum, Window
from django.db.models.functions import RowNumber

from accounts.models import Organisation, Project
from relay.models import PeerFlow, Session, SessionMove, UsageHour

SESSIONS_PER_PAGE: Final = 50
PEERS_PER_SESSION: Final = 4  # shown; how many there are is counted
MOVES_PER_SESSION: Final = 3  # shown: the last ones


@dataclass(frozen=True)
class SessionCursor:
    """A place in the list of a project's sessions: behind this one."""

    started_at: datetime
    boot: str
    allocation: int

    @classmethod
    def of(cls, session: Session) -> SessionCursor:
        """The place of `session`."""
        return cls(session.started_at, session.boot, session.allocation)

    @classmethod
    def parse(cls, text: str) -> SessionCursor | None:
        """Read what `str` wrote; None where it is something else."""
        time, _, rest = text.partition("_")
        boot, _, allocation = rest.partition("_")
        if not (boot.isalnum() and allocation.isdecimal() and len(allocation) < 19):
            return None
        try:
            started_at = datetime.fromisoformat(time)
        except ValueError:
            return None
        return cls(started_at, boot, int(allocation)) if started_at.tzinfo else None

    def __str__(self) -> str:
        return f"{self.started_at.isoformat()}_{self.boot}_{self.allocation}"


class Peer(NamedTuple):
    """Whom a session exchanged data with; or its client."""

    address: str
    port: int


@dataclass(frozen=True)
class SessionRow:
    """One session and its peers.

    Attributes:
        session: the allocation.
        clients: where its client was: first, and after its last moves, at most
            `MOVES_PER_SESSION` of them.
        peers: the first of them by address, at most `PEERS_PER_SESSION`.
        peers_more: how many others there are.
    """

    session: Session
    clients: list[Peer]
    peers: list[Peer]
    peers_more: int


@dataclass(frozen=True)
class SessionPage:
    """Some sessions, newest first.

    Attributes:
        rows: at most `SESSIONS_PER_PAGE`.
        older: where the next page begins; None on the last.
    """

    rows: list[SessionRow]
    older: SessionCursor | None


@dataclass(frozen=True)
class UsageSum:
    """Bytes of one or many projects over some time; the relay's view, framing included."""

    client_sent_bytes: int
    client_received_bytes: int


def sessions_page(*, project: Project, behind: SessionCursor | None = None) -> SessionPage:
    """The sessions of a project, newest first, a page at a time: three queries, all by index."""
    sessions = Session.objects.filter(project=project)
    if behind is not None:
        sessions = sessions.filter(
            Q(started_at__lt=behind.started_at)
            | Q(started_at=behind.started_at, boot__lt=behind.boot)
            | Q(started_at=behind.started_at, boot=behind.boot, allocation__lt=behind.allocation),
            started_at__lte=behind.started_at,
        )
    found = list(sessions.order_by("-started_at", "-boot", "-allocation")[: SESSIONS_PER_PAGE + 1])
    shown = found[:SESSIONS_PER_PAGE]
    peers, moves = _peers_of(shown), _moves_of(shown)
    return SessionPage(
        rows=[
            SessionRow(
                session=session,
                clients=[
                    Peer(session.client_address, session.client_port),
                    *moves.get((session.node, session.boot, session.allocation), []),
                ],
                peers=[Peer(address, port) for address, port, _ in named],
                peers_more=max([count for *_, count in named], default=0) - len(named),
            )
            for session in shown
            for named in [peers.get((session.node, session.boot, session.allocation), [])]
        ],
        older=SessionCursor.of(shown[-1]) if len(found) > len(shown) else None,
    )


def sessions_open_count(*, organisation: Organisation) -> int:
    """How many allocations the organisation's projects have now."""
    return Session.objects.filter(project__organisation=organisation, ended_at=None).count()


def usage_sum(
    *, organisation: Organisation, starts_at: datetime, ends_at: datetime
) -> dict[int, UsageSum]:
    """What each project of an organisation relayed in the hours within [starts_at, ends_at)."""
    rows = (
        UsageHour.objects.filter(
            project__organisation=organisation, hour__gte=starts_at, hour__lt=ends_at
        )
        .values("project_id")
        .annotate(sent=Sum("client_sent_bytes"), received=Sum("client_received_bytes"))
    )
    return {row["project_id"]: UsageSum(int(row["sent"]), int(row["received"])) for row in rows}


def usage_unrated() -> Iterator[tuple[int, datetime]]:
    """(organisation, hour) of usage that billing has not yet taken into account."""
    yield from (
        UsageHour.objects.filter(is_rated=False)
        .order_by()
        .annotate(organisation_id=F("project__organisation_id"))
        .values_list("organisation_id", "hour")
        .distinct()
    )


def _peers_of(sessions: list[Session]) -> dict[tuple[str, str, int], list[tuple[str, int, int]]]:
    """The first peers of each session: address, port, and how many peers there are."""
    if not sessions:
        return {}
    of_session = [F("node"), F("boot"), F("allocation")]
    by_address = ["peer_address", "peer_port"]
    rows = (
        PeerFlow.objects.filter(_belongs_to(sessions))
        .annotate(
            place=Window(RowNumber(), partition_by=of_session, order_by=by_address),
            count=Window(Count("*"), partition_by=of_session),
        )
        .filter(place__lte=PEERS_PER_SESSION)
        .order_by(*by_address)
        .values_list("node", "boot", "allocation", *by_address, "count")
    )
    peers: dict[tuple[str, str, int], list[tuple[str, int, int]]] = {}
    for node, boot, allocation, address, port, count in rows:
        peers.setdefault((node, boot, allocation), []).append((address, port, count))
    return peers


def _moves_of(sessions: list[Session]) -> dict[tuple[str, str, int], list[Peer]]:
    """Where the client of each session came to be last, in that order."""
    if not sessions:
        return {}
    of_session = [F("node"), F("boot"), F("allocation")]
    rows = (
        SessionMove.objects.filter(_belongs_to(sessions))
        .annotate(place=Window(RowNumber(), partition_by=of_session, order_by="-number"))
        .filter(place__lte=MOVES_PER_SESSION)
        .order_by("number")
        .values_list("node", "boot", "allocation", "client_address", "client_port")
    )
    moves: dict[tuple[str, str, int], list[Peer]] = {}
    for node, boot, allocation, address, port in rows:
        moves.setdefault((node, boot, allocation), []).append(Peer(address, port))
    return moves


def _belongs_to(sessions: list[Session]) -> Q:
    """Rows of one of these sessions, which there must be."""
    wanted = Q()
    for session in sessions:
        wanted |= Q(
            node=session.node,
            boot=session.boot,
            allocation=session.allocation,
            session_started_at=session.started_at,
        )
    return wanted
