"""Versions in whatever order they arrive: the last word is the last one, and none is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from relay.control.ledger import KEPT_MAX, Ledger
from relay.control.messages import ControlMessage, Envelope, SessionEnd, StatusAsk


def change(version: int, about: str = "a") -> Envelope:
    """A change of something by its version, as the database commits it."""
    return Envelope(SessionEnd("node", about, version), version)


def versions(messages: list[ControlMessage]) -> list[int]:
    return [message.allocation for message in messages if isinstance(message, SessionEnd)]


def test_what_comes_in_order_is_applied_once() -> None:
    ledger = Ledger()
    assert versions(ledger.take(change(1))) == [1]
    assert versions(ledger.take(change(2))) == [2]
    assert versions(ledger.take(change(2))) == []
    assert versions(ledger.take(change(1))) == []
    assert not ledger.is_missing_some


def test_what_is_no_change_of_the_database_is_applied_whenever_it_comes() -> None:
    ledger = Ledger()
    ask = StatusAsk("0" * 32)
    assert ledger.take(Envelope(ask)) == [ask]
    assert ledger.take(Envelope(ask)) == [ask]
    assert ledger.has == 0


def test_overtaken_change_is_applied_late_and_the_newer_ones_once_more() -> None:
    ledger = Ledger()
    assert versions(ledger.take(change(3))) == [3]
    assert versions(ledger.take(change(2))) == [2, 3]
    assert ledger.has == 0
    assert versions(ledger.take(change(1))) == [1, 2, 3]
    assert (ledger.has, ledger.is_missing_some) == (3, False)


def test_snapshot_fills_the_gap() -> None:
    ledger = Ledger()
    ledger.take(change(1))
    ledger.take(change(3))
    assert ledger.snapshot_begins() == 1
    assert ledger.snapshot_ends(3) == []
    assert (ledger.has, ledger.is_missing_some) == (3, False)


def test_what_came_while_a_snapshot_was_read_is_applied_once_more() -> None:
    ledger = Ledger()
    ledger.snapshot_begins()
    for version in (1, 2, 4):
        ledger.take(change(version))
    assert versions(ledger.snapshot_ends(1)) == [2, 4]
    assert (ledger.has, ledger.is_missing_some) == (2, True)
    assert versions(ledger.take(change(3))) == [3, 4]


def test_version_that_the_database_never_had_is_not_waited_for() -> None:
    ledger = Ledger()
    ledger.take(change(2**50))
    assert ledger.is_missing_some
    ledger.snapshot_begins()
    assert ledger.snapshot_ends(5) == []
    assert (ledger.has, ledger.is_missing_some) == (5, False)


def test_another_database_is_taken_at_its_word() -> None:
    ledger = Ledger()
    ledger.take(change(1))
    ledger.snapshot_begins()
    ledger.begin_anew()
    assert ledger.snapshot_ends(0) == []
    assert versions(ledger.take(change(1))) == [1]


def test_changes_ahead_are_bounded_and_what_is_beyond_asks_for_a_snapshot() -> None:
    ledger = Ledger()
    for version in range(2, KEPT_MAX + 10):
        assert versions(ledger.take(change(version))) == [version]
    assert ledger.is_missing_some
    ledger.snapshot_begins()
    ledger.snapshot_ends(KEPT_MAX + 9)
    assert (ledger.has, ledger.is_missing_some) == (KEPT_MAX + 9, False)


class Relay:
    """What one relay holds of a few things, by a ledger, and a database that commits changes."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self.ledger = Ledger(kept_max)
        self.holds: dict[str, int] = {}
        self.committed: list[Envelope] = []
        self.reading: tuple[int, list[Envelope]] | None = None

    def commit(self, about: str) -> Envelope:
        self.committed.append(change(len(self.committed) + 1, about))
        return self.committed[-1]

    def deliver(self, envelope: Envelope) -> None:
        self.apply(self.ledger.take(envelope))

    def apply(self, messages: list[ControlMessage]) -> None:
        for message in messages:
            assert isinstance(message, SessionEnd)
            self.holds[message.boot] = message.allocation

    def snapshot_begins(self) -> None:
        """The database is read now, and what it says arrives later."""
        since = self.ledger.snapshot_begins()
        self.reading = len(self.committed), self.committed[since:]

    def snapshot_ends(self) -> None:
        if self.reading is None:
            return
        version, rows = self.reading
        self.reading = None
        self.apply([row.message for row in rows])
        self.apply(self.ledger.snapshot_ends(version))

    def snapshot_fails(self) -> None:
        """Some of it arrived."""
        if self.reading is not None:
            self.apply([row.message for row in self.reading[1][:1]])
            self.reading = None

    @property
    def truth(self) -> dict[str, int]:
        return {
            row.message.boot: row.message.allocation
            for row in self.committed
            if isinstance(row.message, SessionEnd)
        }


@given(some.data())
def test_whatever_is_lost_late_or_twice_the_last_word_holds_after_a_snapshot(
    draw: some.DataObject,
) -> None:
    relay = Relay(kept_max=draw.draw(some.sampled_from((2, 1000))))
    published: list[Envelope] = []
    steps = some.sampled_from(("commit", "lose", "deliver", "repeat", "read", "arrive", "fail"))
    for step in draw.draw(some.lists(steps, max_size=60)):
        if step in ("commit", "lose"):
            envelope = relay.commit(draw.draw(some.sampled_from("abc")))
            if step == "commit":
                published.append(envelope)
        elif step in ("deliver", "repeat") and published:
            number = draw.draw(some.integers(0, len(published) - 1))
            relay.deliver(published.pop(number) if step == "deliver" else published[number])
        elif step == "read" and relay.reading is None:
            relay.snapshot_begins()
        elif step == "arrive":
            relay.snapshot_ends()
        elif step == "fail":
            relay.snapshot_fails()
    for _ in range(2):  # one may be under way
        relay.snapshot_ends()
        relay.snapshot_begins()
    relay.snapshot_ends()
    assert relay.holds == relay.truth
    assert (relay.ledger.has, relay.ledger.is_missing_some) == (len(relay.committed), False)
    for envelope in published:  # what is still under way changes nothing any more
        relay.deliver(envelope)
    assert relay.holds == relay.truth


@given(some.permutations(range(1, 9)), some.lists(some.sampled_from("ab"), min_size=8, max_size=8))
def test_in_any_order_the_last_word_holds_without_a_snapshot(
    order: list[int], about: list[str]
) -> None:
    relay = Relay()
    envelopes = [relay.commit(name) for name in about]
    for version in order:
        relay.deliver(envelopes[version - 1])
    assert relay.holds == relay.truth
    assert not relay.ledger.is_missing_some


def test_what_there_was_no_room_for_is_in_every_snapshot_until_there_is() -> None:
    ledger = Ledger()
    ledger.take(change(1))
    ledger.take(change(2))
    ledger.refused(1)
    ledger.take(change(3))
    assert (ledger.has, ledger.is_missing_some) == (3, False)  # nothing new is waited for
    assert ledger.snapshot_begins() == 1
    ledger.refused(1)  # still
    ledger.snapshot_ends(3)
    assert ledger.snapshot_begins() == 1
    ledger.snapshot_ends(3)
    assert ledger.snapshot_begins() == 3
