"""Shared memory: counts are exact, what a dead process held is given back."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import shared_holdings
from relay.core.addresses import FAMILY_IPV4, FAMILY_IPV6
from relay.core.holdings import QuotaExceeded
from relay.shared_holdings import SharedHoldings

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = 3
PROJECTS = ("prj_a", "prj_b", "prj_c")
CREDENTIALS = ("crd_1", "crd_2", "")
PORTS = (50000, 50099)


@contextmanager
def views(allocations_max: int = 100) -> Iterator[list[SharedHoldings]]:
    """The same memory as each process sees it."""
    holdings = SharedHoldings(processes=PROCESSES, allocations_max=allocations_max)
    seen = [copy.copy(holdings) for _ in range(PROCESSES)]
    for process, view in enumerate(seen):
        view.enter(process)
    try:
        yield seen
    finally:
        holdings.close()


Holder = tuple[int, str, str]
Step = tuple[str, int, str, str, int | None, int | None]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "give back", "forget"]),
        st.integers(0, PROCESSES - 1),
        st.sampled_from(PROJECTS),
        st.sampled_from(CREDENTIALS),
        st.sampled_from([None, 1, 3]),
        st.sampled_from([None, 2]),
    ),
    max_size=60,
)


class Model:
    """What is held, as anybody would count it."""

    def __init__(self) -> None:
        self.held: Counter[Holder] = Counter()

    def count(self, project: str, credential: str | None = None) -> int:
        return sum(
            number
            for (_, owner, of), number in self.held.items()
            if owner == project and credential in (None, of)
        )

    def exceeded(
        self, project: str, credential: str, project_max: int | None, credential_max: int | None
    ) -> QuotaExceeded | None:
        """The quota that one more would exceed."""
        if project_max is not None and self.count(project) >= project_max:
            return QuotaExceeded(False, self.count(project), project_max)
        count = self.count(project, credential)
        if credential and credential_max is not None and count >= credential_max:
            return QuotaExceeded(True, count, credential_max)
        return None

    def forget(self, process: int) -> None:
        for holder in [holder for holder in self.held if holder[0] == process]:
            del self.held[holder]


@given(steps=STEPS)
def test_counts_are_what_is_held_by_all_processes(steps: list[Step]) -> None:
    model = Model()
    with views() as seen:
        for step, process, project, credential, *limits in steps:
            holder = process, project, credential
            if step == "take":
                found = seen[process].take(project, credential, *limits)
                assert found == model.exceeded(project, credential, *limits)
                model.held[holder] += found is None
            elif step == "give back" and model.held[holder]:
                seen[process].give_back(project, credential)
                model.held[holder] -= 1
            elif step == "forget":
                seen[0].forget(process, PORTS)
                seen[process].enter(process)  # as its successor does
                model.forget(process)
        for project in PROJECTS:
            assert seen[1].held(project) == model.count(project)
            for credential in filter(None, CREDENTIALS):
                assert seen[2].held(project, credential) == model.count(project, credential)


def test_name_that_nobody_holds_gives_its_place_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_holdings, "PLACES", 4)
    with views(allocations_max=1) as (first, second, _):  # one bucket
        for project in ("a", "b", "c", "d"):
            assert first.take(project, "", None, None) is None
        assert second.take("e", "", None, None) == QuotaExceeded(False, 0, 0)
        assert second.take("a", "", None, None) is None
        first.give_back("b", "")
        assert second.take("e", "", None, None) is None
        first.give_back("a", "")
        assert [first.held(project) for project in "abcde"] == [1, 0, 1, 1, 1]


def test_no_part_of_an_allocation_is_counted_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_holdings, "PLACES", 4)
    with views(allocations_max=1) as (first, second, _):
        for project in ("a", "b", "c"):
            assert first.take(project, "", None, None) is None
        assert second.take("d", "crd", None, None) == QuotaExceeded(True, 0, 0)
        assert second.held("d") == 0
        assert second.take("d", "", None, None) is None


def test_relayed_addresses_of_a_process_are_forgotten_with_it_and_no_others() -> None:
    with views() as (first, second, third):
        first.relayed_set(FAMILY_IPV4, 50000, 17)
        first.relayed_set(FAMILY_IPV6, 50099, 6)
        second.relayed_set(FAMILY_IPV4, 50100, 17)
        assert third.relayed_protocol(FAMILY_IPV4, 50000) == 17
        assert third.relayed_protocol(FAMILY_IPV6, 50000) == 0
        assert third.relayed_protocol(FAMILY_IPV6, 50099) == 6
        third.forget(0, PORTS)
        assert [third.relayed_protocol(FAMILY_IPV4, port) for port in (50000, 50100)] == [0, 17]
        assert third.relayed_protocol(FAMILY_IPV6, 50099) == 0


def test_quota_is_exact_while_processes_contend_and_are_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.relay.processes.contention"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    taken, refused, left = map(int, done.stdout.split())
    assert taken > 1000
    assert refused > 0
    assert left == 0
