"""`manage.py relay_status`: how the relays are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from django.utils import timezone

from relay.control.answers import RelayStatus
from relay.management.shell import Column, RelayCommand, seconds_show, silent_document
from relay.selectors import LiveStatus, relays_live

COLUMNS: Final = (
    Column("RELAY"),
    Column("STATE"),
    Column("SESSIONS", is_number=True),
    Column("PORTS", is_number=True),
    Column("UP", is_number=True),
    Column("CONFIGURATION"),
)


class Command(RelayCommand):
    help = "Say how the relays are: what they take, what lives there, and how old that is."

    def act(self, options: Mapping[str, Any]) -> None:
        live = relays_live()
        if options["json"]:
            self.say_json(document(live))
        self.somebody_must_answer(live.relays, live.silent)
        if not options["json"]:
            unix_now = timezone.now().timestamp()
            self.table(
                COLUMNS,
                [row(str(origin), status, unix_now) for origin, status in live.relays.items()],
            )
        self.silent_end(live.silent)


def row(name: str, status: RelayStatus, unix_now: float) -> tuple[str, ...]:
    configuration = f"{seconds_show(unix_now - status.configured_at)} old"
    if status.configuration_refusal:
        configuration += f"; a newer one was refused: {status.configuration_refusal}"
    return (
        name,
        state(status, unix_now),
        f"{status.allocations:,}",
        f"{status.ports_taken:,}",
        seconds_show(unix_now - status.started_at),
        configuration,
    )


def state(status: RelayStatus, unix_now: float) -> str:
    """One or two words."""
    if status.is_draining and not status.allocations:
        return "drained"
    if status.is_draining and status.drain_ends_at is not None:
        return f"draining, {seconds_show(status.drain_ends_at - unix_now)} more"
    if status.is_draining:
        return "draining"
    return "closed: " + "; ".join(status.closed_because) if status.closed_because else "open"


def document(live: LiveStatus) -> Mapping[str, object]:
    return {
        "relays": [
            {**origin._asdict(), **asdict(status)} for origin, status in live.relays.items()
        ],
        "silent": silent_document(live.silent),
    }
