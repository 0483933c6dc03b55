"""A state machine over the whole server: quota = what is held, ports in use = what lives.

Clients of three projects allocate (also even ports with a reserved neighbour), vanish, delete, are
revoked, cut and ended, while opening a socket fails or takes its time.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.core.credentials import password_derive, username_format
from relay.core.limits import OnExpiry, ProjectLimits
from tests.relay.fake_link import SECRET, FakeClient, World, settings_make
from tests.turn_client import UDP_PROTOCOL, Attribute, Kind, Method, TurnError, message_encode

PROJECTS = ("prj_a", "prj_b", "prj_c")
CREDENTIALS = ("crd_1", "crd_2")
LOW, HIGH = 50000, 50015
EVEN_PORT = 0x0018
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
WANTED: list[list[tuple[int, bytes]]] = [[], [(EVEN_PORT, b"\0")], [(EVEN_PORT, b"\x80")]]


class QuotaMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.drawn = 0
        self.world = World(settings_make(relay_ports=(LOW, HIGH)), self.random_bytes)
        self.limits = dict.fromkeys(PROJECTS, ProjectLimits())
        self.port = 1000

    def random_bytes(self, count: int) -> bytes:
        """The same in every run, so that hypothesis can repeat what it found."""
        self.drawn += 1
        return hashlib.sha256(self.drawn.to_bytes(8, "big")).digest()[:count]

    @rule(
        project=st.sampled_from(PROJECTS),
        credential=st.sampled_from(CREDENTIALS),
        ttl_seconds=st.integers(-10, 900),
        wanted=st.sampled_from(WANTED),
        slow=st.booleans(),
        taken=st.sets(st.integers(LOW, HIGH), max_size=14),
    )
    def allocate(
        self,
        project: str,
        credential: str,
        ttl_seconds: int,
        wanted: list[tuple[int, bytes]],
        slow: bool,
        taken: set[int],
    ) -> None:
        self.port += 1
        client = self.client(project, credential, ttl_seconds)
        self.world.opening_is_slow = slow
        self.world.ports_elsewhere = taken - set(self.world.open_ports)
        client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
        signed = client.signed([REQUESTED, *wanted])
        client.transmit(message_encode(Method.ALLOCATE, Kind.REQUEST, signed, key=client.key))

    def client(self, project: str, credential: str, ttl_seconds: int) -> FakeClient:
        username = username_format(
            expires_at=int(self.world.now + ttl_seconds), project=project, credential=credential
        )
        password = password_derive(SECRET, username)
        return self.world.client(("192.0.2.7", self.port), (username, password))

    @rule()
    def open_what_waits(self) -> None:
        self.world.open_all()

    @rule(data=st.data(), lifetime=st.sampled_from([0, 600, 3600]))
    def refresh(self, data: st.DataObject, lifetime: int) -> None:
        live = list(self.world.turn.table.by_id.values())
        if not live:
            return
        client = self.world.clients[data.draw(st.sampled_from(live)).client]
        try:
            client.refresh(lifetime)
        except TurnError as error:
            assert error.code == 401

    @rule(seconds=st.integers(1, 700))
    def time_passes(self, seconds: int) -> None:
        self.world.pass_seconds(seconds)

    @rule(
        project=st.sampled_from(PROJECTS),
        quota=st.none() | st.integers(0, 5),
        on_expiry=st.sampled_from(OnExpiry),
    )
    def limit(self, project: str, quota: int | None, on_expiry: OnExpiry) -> None:
        limits = ProjectLimits(allocations_max=quota, on_expiry=on_expiry)
        self.limits[project] = limits
        self.world.perform(
            self.world.turn.control.project_limits_set(project, limits, self.world.now)
        )

    @rule(project=st.sampled_from(PROJECTS), credential=st.sampled_from(CREDENTIALS))
    def revoke(self, project: str, credential: str) -> None:
        now = self.world.now
        self.world.perform(
            self.world.turn.control.credential_revoke(project, credential, now + 900, now)
        )

    @rule(number=st.integers(1, 40))
    def end(self, number: int) -> None:
        self.world.perform(self.world.turn.control.session_end(number))

    @invariant()
    def quota_is_what_is_held(self) -> None:
        live = list(self.world.turn.table.by_id.values())
        opening = [effect.allocation for effect in self.world.opening]
        held = Counter(found.owner for found in [*live, *opening])
        for project in PROJECTS:
            assert self.world.turn.table.entitlements.held_count(project) == held[project]

    @invariant()
    def open_sockets_are_what_lives(self) -> None:
        live = self.world.turn.table.by_id.values()
        assert set(self.world.open_ports) == {
            relayed.port for found in live for relayed in found.relayed.values()
        }

    @invariant()
    def nothing_ends_twice_or_before_it_began(self) -> None:
        ended = [found.id for found in self.world.ended]
        assert len(ended) == len(set(ended))
        assert set(ended) <= {found.id for found in self.world.started}

    @invariant()
    def what_is_cut_is_gone(self) -> None:
        for allocation in self.world.turn.table.by_id.values():
            assert allocation.cut_at > self.world.now

    def teardown(self) -> None:
        self.world.open_all()
        self.world.perform(self.world.turn.end_all())
        self.world.pass_seconds(60)
        assert self.world.turn.table.ports.taken_count == 0
        for project in PROJECTS:
            assert self.world.turn.table.entitlements.held_count(project) == 0


TestQuotaMachine = pytest.mark.timeout(120)(QuotaMachine.TestCase)
QuotaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
