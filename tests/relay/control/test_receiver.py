"""What a relay does with a message, without Valkey: on the fake link."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from relay.clock import Clock
from relay.control.messages import (
    ControlMessage,
    CredentialExtend,
    CredentialLimit,
    CredentialRevoke,
    ProjectLimitsSet,
    SessionEnd,
    StatusAsk,
    UsernameAnnounce,
)
from relay.control.receiver import Receiver
from relay.core.control import CUT_OFF
from relay.core.credentials import username_parse
from relay.core.limits import OnExpiry, ProjectLimits
from relay.desk import Desk
from tests.relay.expectations import refused
from tests.relay.fake_link import FakeClient, World, settings_make

PROJECT, CREDENTIAL = "prj_a", "crd_b"


class Controlled:
    """A world whose server takes messages."""

    def __init__(self, **changed: object) -> None:
        self.world = World(settings_make(**changed))
        self.receiver = Receiver(
            self.world.turn,
            lambda effects: self.world.perform(list(effects)),
            lambda: self.world.now,
            node="node-1",
            boot="b00t",
        )
        Desk(
            turn=self.world.turn,
            receiver=self.receiver,
            reloader=None,  # type: ignore[arg-type]
            meter=None,  # type: ignore[arg-type]
            perform=lambda effects: self.world.perform(list(effects)),
            clock=Clock(),
        )
        self.answers: list[Mapping[str, object]] = []

    def tell(self, message: ControlMessage) -> bool:
        return self.receiver.receive(message, self.answers.append)

    @property
    def until(self) -> float:
        return self.world.now + 86400

    def client(self) -> FakeClient:
        return self.world.client()


def test_revoke_extend_and_limit_reach_the_core() -> None:
    controlled = Controlled()
    client = controlled.client()
    client.allocate()
    controlled.tell(
        CredentialLimit(PROJECT, CREDENTIAL, controlled.until, OnExpiry.CUT, None, 1000)
    )
    (live,) = controlled.world.started
    assert live.gate is not None
    parsed = username_parse(live.username)
    assert parsed is not None
    extended = CredentialExtend(PROJECT, CREDENTIAL, parsed.expires_at + 600, controlled.until)
    controlled.tell(extended)
    controlled.world.pass_seconds(500)
    client.refresh(3600)
    controlled.world.pass_seconds(3400)  # beyond the end that the username names
    assert controlled.world.ended == []
    controlled.tell(CredentialRevoke(PROJECT, CREDENTIAL, controlled.until))
    assert controlled.world.ended == [live]


def test_limits_of_a_project_and_the_settings_again() -> None:
    controlled = Controlled()
    controlled.tell(ProjectLimitsSet(PROJECT, ProjectLimits(allocations_max=0)))
    with refused(486):
        controlled.client().allocate()
    controlled.tell(ProjectLimitsSet(PROJECT, None))
    controlled.client().allocate()


@pytest.mark.parametrize(
    ("node", "boot", "ends"),
    [("node-1", "b00t", True), ("node-1", "other", False), ("node-2", "b00t", False)],
)
def test_session_is_ended_by_the_relay_and_the_start_that_it_is_of(
    node: str, boot: str, *, ends: bool
) -> None:
    controlled = Controlled()
    controlled.client().allocate()
    (live,) = controlled.world.started
    controlled.tell(SessionEnd(node, boot, live.id))
    controlled.tell(SessionEnd(node, boot, live.id))  # it comes twice
    assert controlled.world.ended == ([live] if ends else [])


def test_announced_username_is_known_until_it_ends() -> None:
    controlled = Controlled()
    controlled.tell(UsernameAnnounce("somebody", controlled.until))
    usernames = controlled.world.turn.usernames
    assert list(usernames.by_hash.values()) == ["somebody"]
    usernames.forget(controlled.until)
    assert usernames.by_hash == {}


def test_what_there_is_no_room_for_is_said_and_changes_nothing() -> None:
    controlled = Controlled(overrides_max=1)
    assert controlled.tell(CredentialRevoke(PROJECT, "crd_other", controlled.until))
    assert not controlled.tell(CredentialRevoke(PROJECT, CREDENTIAL, controlled.until))
    controlled.client().allocate()
    assert controlled.receiver.counts["full"] == 1


def test_message_that_nothing_handles_is_counted() -> None:
    controlled = Controlled()
    controlled.receiver.handlers.pop(StatusAsk, None)
    assert controlled.tell(StatusAsk("0" * 32))
    assert controlled.receiver.counts["unknown"] == 1
    assert controlled.answers == []


def test_cut_off_refuses_new_allocations_with_508_and_keeps_the_reason() -> None:
    controlled = Controlled()
    client = controlled.client()
    client.allocate()
    controlled.receiver.cut_off_set(True)
    controlled.receiver.cut_off_set(True)
    newcomer = controlled.world.client(("192.0.2.8", 40000))
    with refused(508):
        newcomer.allocate()
    (kept,) = controlled.world.refusals_explain(CREDENTIAL, controlled.world.now)
    assert (kept.method, kept.code, kept.rule) == ("Allocate", 508, CUT_OFF)
    assert client.refresh(600) == 600
    client.permit(("8.8.8.8", 5000))
    controlled.receiver.cut_off_set(False)
    newcomer.allocate()


def test_two_reasons_to_refuse_have_to_go_one_by_one() -> None:
    controlled = Controlled()
    control = controlled.world.turn.control
    control.new_refuse("one")
    control.new_refuse("another")
    control.new_accept("one")
    with refused(508):
        controlled.client().allocate()
    control.new_accept("another")
    control.new_accept("never refused")
    controlled.client().allocate()
