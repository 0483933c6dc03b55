"""From counters to a snapshot: nothing is lost, nothing goes down, and packets wait for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config import ClientLimits
from relay.core import stun
from relay.core.addresses import FiveTuple
from relay.core.allocation import Allocation
from relay.core.drops import DROP_REASONS
from relay.core.effects import AuthenticationOutcome
from relay.core.integrity import NO_KEYS, IntegrityKey
from relay.core.turn import TurnServer
from relay.metering.journal import Journal
from relay.transports.clients import ClientTransports
from relay.transports.peers import PeerStreams
from relay.watching.metrics import METRICS, ours, zeros
from relay.watching.observation import Observation, dropped_by_reason
from relay.watching.snapshot import RelayState, Snapshot, snapshot_absent, snapshot_decode
from relay.watching.tally import Tally, way_of
from relay.watching.watchdog import Watchdog
from tests.relay.fake_link import SERVER, settings_make

ALLOCATIONS = 10_000
WAYS = [
    FiveTuple(transport, ("192.0.2.1", 1), (host, 3478))
    for transport in ("udp", "tcp", "tls", "dtls")
    for host in ("198.51.100.1", "2001:db8::1")
]


class Seen:
    """An observation of a core whose clients come by no socket."""

    def __init__(self, home: Path) -> None:
        self.turn = TurnServer(settings_make(), bytes)
        self.tally = Tally()
        self.state = RelayState()
        self.journal = Journal(directory=home / "journal", node="n", boot="b")
        clock = time.monotonic
        self.clients = ClientTransports(
            addresses=(),
            endpoints=None,
            certificate=None,
            trusted=(),
            limits=ClientLimits(),
            turn=self.turn,
            perform=lambda _: None,
            clock=clock,
            ring=None,
        )
        self.peers = PeerStreams(
            self.turn,
            lambda _: None,
            lambda _: None,
            lambda _: None,
            lambda _: None,
            clock,
        )
        self.observation = Observation(
            process=0,
            turn=self.turn,
            clients=self.clients,
            peers=self.peers,
            journal=self.journal,
            tally=self.tally,
            watchdog=Watchdog(),
            state=lambda: self.state,
        )

    def look(self) -> Snapshot:
        return asyncio.run(self.observation.snapshot())

    def close(self) -> None:
        self.clients.close()
        self.peers.close_all()
        self.journal.close()


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    made = Seen(tmp_path)
    yield made
    made.close()


def allocation_make(number: int, five_tuple: FiveTuple) -> Allocation:
    return Allocation(
        number=number,
        five_tuple=five_tuple,
        owner="prj_a",
        username="",
        keys=NO_KEYS,
        key=IntegrityKey(b""),
        transaction_id=bytes(12),
    )


def test_ten_thousand_allocations_are_added_up_without_holding_up_the_loop(seen: Seen) -> None:
    """The loop's thread computes for well under 50 ms at a time."""
    for number in range(ALLOCATIONS):
        client = f"10.0.{number >> 8}.{number & 255}", 1
        allocation = allocation_make(number, FiveTuple("udp", client, SERVER))
        allocation.client_received_bytes = 10**9 + number
        allocation.peer_received_packets = number
        seen.turn.table.clients("udp", SERVER)[client] = allocation
    turns: list[float] = []

    async def look() -> Snapshot:
        looking = asyncio.create_task(seen.observation.snapshot())
        while not looking.done():
            before = time.thread_time()
            await asyncio.sleep(0)
            turns.append(time.thread_time() - before)
        return looking.result()

    found = asyncio.run(look())
    way = ("udp", "ipv4")
    assert found.values[ours("allocations")][way] == ALLOCATIONS
    received = found.values[ours("relayed_bytes_total")]["from_client", *way]
    assert received == ALLOCATIONS * 10**9 + sum(range(ALLOCATIONS))
    assert found.values[ours("relayed_packets_total")]["from_peer", *way] == sum(range(ALLOCATIONS))
    assert len(turns) >= 20
    assert max(turns) < 0.05  # measured: 0.002


Step = tuple[str, int, int]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "relay", "move", "end"]),
            st.integers(0, 5),
            st.integers(0, len(WAYS) - 1),
        ),
        max_size=60,
    )
)
@settings(max_examples=60)
def test_no_counter_goes_down_and_the_sum_is_what_was_relayed(steps: list[Step]) -> None:
    tally = Tally()
    live: dict[int, Allocation] = {}
    relayed = began = 0
    before: dict[tuple[str, str], int] = {}
    for action, number, way in steps:
        five_tuple = WAYS[way]
        if action == "begin" and number not in live:
            live[number] = allocation_make(number, five_tuple)
            tally.allocation_started(live[number])
            began += 1
        elif number not in live:
            continue
        elif action == "relay":
            live[number].client_received_bytes += 1 + way
            relayed += 1 + way
        elif action == "move":
            previous = live[number].five_tuple
            live[number].five_tuple_set(five_tuple)
            tally.allocation_moved(live[number], previous)
        elif action == "end":
            tally.allocation_ended(live.pop(number))
        totals = {way: sums[0] for way, sums in tally.past.items()}
        for allocation in live.values():
            now = way_of(allocation.transport, allocation.five_tuple.server)
            totals[now] = totals.get(now, 0) + allocation.client_received_bytes
        assert sum(totals.values()) == relayed
        assert all(totals.get(each, 0) >= count for each, count in before.items())
        assert all(count >= 0 for count in totals.values())
        before = totals
    assert sum(tally.started.values()) == began


def test_what_ends_while_it_is_added_up_is_counted_once(seen: Seen) -> None:
    clients = seen.turn.table.clients("udp", SERVER)
    for number in range(1500):
        client = f"10.0.{number >> 8}.{number & 255}", 1
        clients[client] = allocation_make(number, FiveTuple("udp", client, SERVER))
        clients[client].peer_received_bytes = 7

    async def look() -> tuple[Snapshot, Snapshot]:
        looking = asyncio.create_task(seen.observation.snapshot())
        await asyncio.sleep(0)
        for client in list(clients):
            seen.tally.allocation_ended(clients.pop(client))
        assert not looking.done()
        return await looking, await seen.observation.snapshot()

    for found in asyncio.run(look()):
        received = found.values[ours("relayed_bytes_total")]["from_peer", "udp", "ipv4"]
        assert received == 1500 * 7


def test_every_series_of_a_snapshot_is_of_a_metric_in_the_table(seen: Seen) -> None:
    labels = {metric.name: len(metric.labels) for metric in METRICS}
    found = seen.look()
    assert set(found.values) == {name for name in labels if not name.startswith("process_")}
    for name, series in found.values.items():
        assert {len(values) for values in series} == {labels[name]}, name
    for name, series in zeros().items():
        assert set(series) <= set(found.values[name])


def test_strange_methods_and_reasons_are_others(seen: Seen) -> None:
    """Whatever a client sends, the labels are those there are."""
    for method in range(0x1000):
        seen.turn.guard.received[method, stun.REQUEST] += 1
    seen.turn.dropped["a reason that nobody has listed"] += 3
    seen.turn.dropped["malformed"] += 1
    found = seen.look().values
    received = found[ours("messages_received_total")]
    assert sum(received.values()) == 0x1000
    assert received["other", "request"] > 4000
    assert len(received) < 20
    assert found[ours("dropped_total")]["other",] == 3
    assert found[ours("dropped_total")]["malformed",] == 1
    assert set(dropped_by_reason({})) == set()
    assert len(found[ours("dropped_total")]) == len(DROP_REASONS) + 1


def test_states_that_take_no_calls_are_reasons(seen: Seen) -> None:
    assert seen.look().unwell == []
    seen.state = RelayState(draining=True, cut_off=True)
    assert len(seen.look().unwell) == 2
    seen.journal.synced_at -= 60
    assert any("60 seconds" in reason for reason in seen.look().unwell)


def test_responses_are_told_apart_by_their_bytes() -> None:
    tally = Tally()
    success = (stun.ALLOCATE | stun.SUCCESS).to_bytes(2, "big") + bytes(18)
    error = (stun.CHANNEL_BIND | stun.ERROR).to_bytes(2, "big") + bytes(24) + bytes((4, 86))
    indication = (stun.DATA | stun.INDICATION).to_bytes(2, "big") + bytes(18)
    for datagram in (success, error, indication):
        tally.responded(datagram)
    assert tally.successes == {stun.ALLOCATE: 1}
    assert tally.errors == {(stun.CHANNEL_BIND, 486): 1}


def test_snapshot_is_the_same_after_its_way_to_a_sibling(seen: Seen) -> None:
    seen.tally.authenticated(AuthenticationOutcome.EXPIRED)
    found = seen.look()
    found.unwell.append("a reason")
    assert snapshot_decode(found.encode()) == found
    absent = snapshot_absent(3, "gone")
    assert snapshot_decode(absent.encode()) == absent
