"""What a relay that is drained, or cut off, says to those who watch it."""

from __future__ import annotations

from pathlib import Path

from relay.core.control import CUT_OFF
from relay.watching.snapshot import RelayState
from tests.relay.transports.rig import relay_running


def test_drained_or_cut_off_relay_says_so_to_who_watches(tmp_path: Path) -> None:
    with relay_running(tmp_path, None) as relay:
        assert relay.ask(lambda runner: runner.state()) == RelayState()
        relay.ask(lambda runner: runner._turn.control.drain(None, 0.0))
        assert relay.ask(lambda runner: runner.state()) == RelayState(draining=True)
        relay.ask(lambda runner: runner._turn.control.undrain())
        relay.ask(lambda runner: runner._turn.control.new_refuse(CUT_OFF))
        assert relay.ask(lambda runner: runner.state()) == RelayState(cut_off=True)
