"""The meter: from the counters of live allocations to usage records.

Every flush looks at each allocation and writes a record for those that relayed something, or met a
peer, since the flush before. An interval begins where the allocation was last looked at, so it
is never longer than the time between two flushes, and the intervals of one allocation never
overlap: bytes that are in one record are in no other. Flushes fall on multiples of the interval
of the clock, which makes every full hour one of them: the hour in which an interval begins is the
hour in which its bytes were relayed, give or take how late the event loop was.

The counters belong to the relay's core and only ever grow; the meter remembers what it reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from relay.metering.records import (
    AuthenticationRecord,
    MoveRecord,
    Record,
    SessionRecord,
    UsageRecord,
)

HOUR_SECONDS: Final = 3600


class Metered(Protocol):
    """What the meter reads of an allocation.

    Attributes:
        id: its number, unique as long as the relay runs.
        owner: the public id of the project that pays.
        client: the client's address and port.
        transport: between client and relay: udp, tcp, tls or dtls.
        client_received_bytes: from the client, with STUN and ChannelData framing.
        client_sent_bytes: to the client, likewise.
        peer_received_bytes: from peers, data only.
        peer_sent_bytes: to peers, likewise.
        peers_unreported: peers that data came from or went to for the first time; the meter
            empties it.
    """

    id: int
    owner: str
    client: tuple[str, int]
    transport: str
    client_received_bytes: int
    client_sent_bytes: int
    peer_received_bytes: int
    peer_sent_bytes: int
    peers_unreported: list[tuple[str, int]]


class Sink(Protocol):
    """Where records go: the journal."""

    def append(self, record: Record) -> None:
        """Take one record."""


class _Account:
    """What the meter remembers of one allocation."""

    __slots__ = (
        "allocation",
        "client_received",
        "client_sent",
        "measured_at",
        "moves",
        "peer_received",
        "peer_sent",
        "sequence",
        "started_at",
    )

    def __init__(self, allocation: Metered, started_at: float) -> None:
        self.allocation = allocation
        self.started_at = started_at
        self.measured_at = started_at
        self.sequence = 0
        self.moves = 0
        self.client_received = 0
        self.client_sent = 0
        self.peer_received = 0
        self.peer_sent = 0


class Meter:
    """The meter of one start of a relay (a boot)."""

    def __init__(self, journal: Sink, *, node: str, boot: str, interval_seconds: int = 5) -> None:
        """Begin with no allocation.

        Args:
            journal: takes the records.
            node: the relay's name.
            boot: names this start of the relay.
            interval_seconds: between two flushes; an hour must be a multiple of it.

        Raises:
            ValueError: an hour is no multiple of the interval.
        """
        if interval_seconds < 1 or HOUR_SECONDS % interval_seconds:
            raise ValueError("the flush interval must divide an hour")
        self._journal = journal
        self._node = node
        self._boot = boot
        self._interval_seconds = interval_seconds
        self._accounts: dict[int, _Account] = {}
        self._authentications = 0

    def next_flush_at(self, now: float) -> float:
        """When `flush` is due next: the coming multiple of the interval, unix seconds."""
        return (now // self._interval_seconds + 1) * self._interval_seconds

    def started_at(self, number: int) -> float | None:
        """When an allocation that is metered began, unix seconds."""
        account = self._accounts.get(number)
        return None if account is None else account.started_at

    def session_started(self, allocation: Metered, now: float) -> None:
        """Begin to meter an allocation; `now` in unix seconds, as everywhere here."""
        self._accounts[allocation.id] = _Account(allocation, now)
        self._authentications += 1
        address, port = allocation.client
        self._journal.append(
            SessionRecord(
                node=self._node,
                boot=self._boot,
                allocation=allocation.id,
                started_at=now,
                project=allocation.owner,
                client_address=address,
                client_port=port,
                transport=allocation.transport,
                authentication=self._authentications,
            )
        )

    def session_moved(self, allocation: Metered, now: float) -> None:
        """Write down the address that a client has now; of an unknown allocation: nothing."""
        account = self._accounts.get(allocation.id)
        if account is None:
            return
        account.moves += 1
        address, port = allocation.client
        self._journal.append(
            MoveRecord(
                node=self._node,
                boot=self._boot,
                allocation=allocation.id,
                number=account.moves,
                project=allocation.owner,
                session_started_at=account.started_at,
                moved_at=max(account.started_at, now),  # the clock may have been set back
                client_address=address,
                client_port=port,
                transport=allocation.transport,
            )
        )

    def session_ended(self, allocation: Metered, now: float) -> None:
        """Write the last record of an allocation; a second time, or an unknown one: nothing."""
        account = self._accounts.pop(allocation.id, None)
        if account is not None:
            self._record(account, now, ended=True)

    def flush(self, now: float) -> None:
        """Write a record for every allocation that relayed something since the last flush."""
        for _ in self.flush_steps(now):
            pass

    def flush_steps(self, now: float, *, allocations_per_step: int = 256) -> Iterator[None]:
        """The same in steps, so that other work gets its turn between them.

        A record takes about 4 us: 10 000 busy allocations at once would hold up every packet for
        40 ms, a step of 256 does so for 1 ms. What ends or begins between two steps is fine.
        """
        accounts = list(self._accounts.values())
        for start in range(0, len(accounts), allocations_per_step):
            for account in accounts[start : start + allocations_per_step]:
                self._flush_account(account, now)
            yield

    def authentication(
        self,
        *,
        now: float,
        client: tuple[str, int],
        transport: str,
        outcome: str,
        project: str | None,
    ) -> None:
        """Write down that somebody proved who he is, or failed to, and no session began with it.

        Args:
            now: unix seconds.
            client: address and port.
            transport: udp, tcp, tls or dtls.
            outcome: a word in lower case, as in `accepted`.
            project: the public id; None where it is not known.
        """
        self._authentications += 1
        address, port = client
        self._journal.append(
            AuthenticationRecord(
                node=self._node,
                boot=self._boot,
                number=self._authentications,
                occurred_at=now,
                project=project,
                client_address=address,
                client_port=port,
                transport=transport,
                outcome=outcome,
            )
        )

    def _flush_account(self, account: _Account, now: float) -> None:
        allocation = account.allocation
        if self._accounts.get(allocation.id) is not account:
            return  # ended since the flush began, its last record is written
        if (
            allocation.client_received_bytes != account.client_received
            or allocation.client_sent_bytes != account.client_sent
            or allocation.peer_received_bytes != account.peer_received
            or allocation.peer_sent_bytes != account.peer_sent
            or allocation.peers_unreported
        ):
            self._record(account, now, ended=False)
        else:
            account.measured_at = now

    def _record(self, account: _Account, now: float, *, ended: bool) -> None:
        """Write what an allocation relayed since it was last looked at."""
        allocation = account.allocation
        # A clock that was set back must not make an interval end before it began.
        interval_started_at = max(account.started_at, min(account.measured_at, now))
        client_received = allocation.client_received_bytes
        client_sent = allocation.client_sent_bytes
        peer_received = allocation.peer_received_bytes
        peer_sent = allocation.peer_sent_bytes
        peers = tuple(allocation.peers_unreported)
        allocation.peers_unreported.clear()
        account.sequence += 1
        self._journal.append(
            UsageRecord(
                node=self._node,
                boot=self._boot,
                allocation=allocation.id,
                sequence=account.sequence,
                project=allocation.owner,
                session_started_at=account.started_at,
                interval_started_at=interval_started_at,
                interval_ended_at=max(interval_started_at, now),
                client_received=client_received - account.client_received,
                client_sent=client_sent - account.client_sent,
                peer_received=peer_received - account.peer_received,
                peer_sent=peer_sent - account.peer_sent,
                client_received_total=client_received,
                client_sent_total=client_sent,
                peer_received_total=peer_received,
                peer_sent_total=peer_sent,
                peers=peers,
                ended=ended,
            )
        )
        account.measured_at = now
        account.client_received = client_received
        account.client_sent = client_sent
        account.peer_received = peer_received
        account.peer_sent = peer_sent
