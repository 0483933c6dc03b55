"""`manage.py runrelay` with a door: what no client can see or do is asked for through a socket.

    python -m tests.as_configured tests.relay.endurance.door NAME

The relay is the real one, started the real way. At NAME, an abstract unix socket, it takes one JSON
list a datagram, a question and what goes with it, and answers with a JSON object. Where
RELAY_LIFETIME_SECONDS is set, that is how long allocations, reservations and idle clients live.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import time
from dataclasses import replace
from math import inf
from typing import Any
from unittest.mock import patch

import relay.runner
from mindmore.command_line import main as command_line
from relay.config import RelayConfig
from relay.core.limits import OnExpiry, ProjectLimits
from relay.runner import Runner

BYTES_MAX = 65536
SECONDS = "RELAY_LIFETIME_SECONDS"


class OpenRunner(Runner):
    """A runner that answers at the door.

    One in a hurry hears of no control channel: each error of a database that is not there leaves
    objects that hold each other, which are none of a call's.
    """

    def __init__(self, config: RelayConfig, control: Any, *given: Any, **named: Any) -> None:
        seconds = int(os.environ.get(SECONDS, 0))
        if seconds:
            config, control = config_hurry(config, seconds), None
        super().__init__(config, control, *given, **named)

    async def run(self) -> None:
        endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        endpoint.bind(f"\0{sys.argv[1]}")
        asyncio.get_running_loop().add_reader(endpoint.fileno(), self._answer, endpoint)
        try:
            await super().run()
        finally:
            asyncio.get_running_loop().remove_reader(endpoint.fileno())
            endpoint.close()

    def _answer(self, endpoint: socket.socket) -> None:
        question, asker = endpoint.recvfrom(BYTES_MAX)
        name, *words = json.loads(question)
        endpoint.sendto(json.dumps(getattr(self, f"do_{name}")(*words)).encode(), asker)

    def do_facts(self) -> dict[str, int]:
        """What is held just now."""
        table = self._turn.table
        return {
            "allocations": len(table.by_id),
            "relayed": len(table.by_relayed),
            "ports": table.ports.taken_count,
            "held": table.entitlements._held_all,
            "metered": len(self._meter._accounts),
            "connections": len(self.clients.streams),
            "sessions": sum(len(each.dtls or ()) for each in self.clients.datagrams),
        }

    def do_collect(self) -> dict[str, int]:
        """Look for objects that only each other hold."""
        return {"found": gc.collect()}

    def do_blocks(self) -> dict[str, int]:
        """How many pieces of memory Python has in use, its free lists and what waits left out."""
        self._journal.flush()
        gc.collect()
        return {"blocks": sys.getallocatedblocks()}

    def do_block(self, seconds: float) -> dict[str, int]:
        """Block the event loop, to see whether that is noticed."""
        time.sleep(seconds)
        return {}

    def do_revoke(self, project: str, credential: str) -> dict[str, int]:
        """Revoke a credential."""
        now = self._clock.steady()
        control = self._turn.control
        self._perform(control.credential_revoke(project, credential, inf, now))
        return {}

    def do_cut(self, project: str) -> dict[str, int]:
        """Set a project's limits: what its revoked credentials made ends now."""
        limits = ProjectLimits(on_expiry=OnExpiry.CUT)
        now = self._clock.steady()
        self._perform(self._turn.control.project_limits_set(project, limits, now))
        return {}

    def do_expire(self) -> dict[str, int]:
        """Let every lifetime end at the same moment, in half a second."""
        table = self._turn.table
        for allocation in table.by_id.values():
            for relayed in allocation.relayed.values():
                table.extend(allocation, relayed, self._clock.steady() + 0.5)
        self._timer_arm()
        return {}


def config_hurry(config: RelayConfig, seconds: int) -> RelayConfig:
    """What takes minutes otherwise takes so many seconds."""
    return replace(
        config,
        client_limits=replace(config.client_limits, idle_seconds=seconds),
        turn=replace(
            config.turn,
            lifetime_seconds_default=seconds,
            lifetime_seconds_max=seconds,
            reservation_lifetime_seconds=seconds,
        ),
    )


class Door:
    """The other side of it."""

    def __init__(self, name: str) -> None:
        self._name = f"\0{name}"

    def ask(self, name: str, *words: object) -> dict[str, Any]:
        """Ask one question."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asker:
            asker.settimeout(30)
            asker.bind("")  # the kernel chooses a name
            asker.sendto(json.dumps([name, *words]).encode(), self._name)
            answer: dict[str, Any] = json.loads(asker.recv(BYTES_MAX))
        return answer


def main() -> None:
    """Run the relay."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mindmore.settings")
    with patch.object(relay.runner, "Runner", OpenRunner):
        sys.exit(command_line(["manage.py", "runrelay"]))


if __name__ == "__main__":
    main()
