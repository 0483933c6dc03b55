"""The probe of the event loop finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.relay.endurance.conftest import BLOCKED_SECONDS_MAX, StartWatched

pytestmark = [pytest.mark.xdist_group("endurance"), pytest.mark.timeout(120)]


def test_probe_finds_a_blocked_event_loop(relay_start: StartWatched) -> None:
    relay = relay_start()
    with pytest.raises(AssertionError, match="event loop was blocked"), relay.probing("blocked"):
        relay.door.ask("block", 10 * BLOCKED_SECONDS_MAX)
