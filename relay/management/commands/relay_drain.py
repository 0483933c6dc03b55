"""`manage.py relay_drain`: relays take no new call, before they are restarted or taken away."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Mapping, Set
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import CommandError
from django.utils import timezone

from relay.control.answers import Done, Origin
from relay.management.shell import (
    INTERRUPTED,
    NOT_DONE,
    SOME_SILENT,
    RelayCommand,
    count_show,
    seconds_show,
    silent_say,
)
from relay.selectors import relays_live
from relay.services.relays import relays_drain, relays_undrain

LOOK_SECONDS: Final = 1.0
LOOKS_MISSED_MAX: Final = 5  # so many seconds longer than a dead relay counts as alive
DEADLINE_SECONDS_MAX: Final = 30 * 24 * 3600


class Command(RelayCommand):
    help = (
        "Have relays take no new allocation (clients are told 508 and go elsewhere); what runs goes"
        " on. A drained relay waits to be stopped; --undo or a restart opens it again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--node", help="this relay only, by its name")
        which.add_argument("--all", action="store_true", help="every relay")
        parser.add_argument(
            "--deadline-seconds", type=seconds, metavar="N", help="end what is left after so long"
        )
        parser.add_argument("--undo", action="store_true", help="take new allocations again")
        parser.add_argument(
            "--wait", action="store_true", help="come back when the last call has ended"
        )

    def act(self, options: Mapping[str, Any]) -> None:
        node, deadline_seconds = options["node"], options["deadline_seconds"]
        if options["undo"]:
            if options["wait"] or deadline_seconds is not None:
                raise CommandError("--undo goes with no deadline and waits for nothing")
            self.told_say(relays_undrain(node=node), options, undrained, node=node)
            return
        ends_at = None
        if deadline_seconds is not None:
            ends_at = timezone.now() + timedelta(seconds=deadline_seconds)
        told = relays_drain(node=node, ends_at=ends_at)
        self.told_say(
            told, options, lambda done: drained(done, deadline_seconds, options["wait"]), node=node
        )
        if not options["wait"]:
            return
        try:
            self.wait(set(told.relays), options)
        except KeyboardInterrupt:
            which_of = "--all" if node is None else f"--node {node}"
            raise CommandError(
                f"the drain goes on; `relay_drain {which_of} --undo` takes it back",
                returncode=INTERRUPTED,
            ) from None

    def wait(self, told: Set[Origin], options: Mapping[str, Any]) -> None:
        """Look at these relays every second until nothing lives there.

        At all their processes: one that was started meanwhile may have been told nothing.
        """
        drained = {origin.node for origin in told}
        said, missed = -1, 0
        while True:
            live = relays_live()
            # What was stopped has nothing left of what it had.
            found = {
                origin: status for origin, status in live.relays.items() if origin.node in drained
            }
            silent = [origin for origin in live.silent if origin.node in drained]
            missed = missed + 1 if silent else 0
            opened = [origin for origin, status in found.items() if not status.is_draining]
            if opened:
                said_of = "; ".join(opened_say(origin, told) for origin in opened)
                raise CommandError(said_of, returncode=NOT_DONE)
            left = sum(status.allocations for status in found.values())
            if left != said and not options["json"]:
                ended = sum(status.drain_ended for status in found.values())
                self.say(f"{count_show(left, 'session')} left" if left else drained_say(ended))
            said = left
            if not left and not silent:
                return
            if missed > LOOKS_MISSED_MAX:
                raise CommandError(silent_say(sorted(silent)), returncode=SOME_SILENT)
            time.sleep(LOOK_SECONDS)


def seconds(text: str) -> int:
    """A number of seconds, for argparse."""
    number = int(text)
    if not 0 <= number <= DEADLINE_SECONDS_MAX:
        raise ValueError(text)
    return number


def opened_say(origin: Origin, told: Set[Origin]) -> str:
    """Why a relay that was drained is open."""
    if origin in told:
        return f"{origin} takes new allocations again"
    return f"{origin} was started anew and takes new allocations: drain it again"


def drained_say(ended: int) -> str:
    """That nothing is left, and what the deadline had to do with it."""
    if not ended:
        return "drained"
    return f"drained; {count_show(ended, 'session')} ended by the deadline"


def drained(done: Done, deadline_seconds: int | None, waits: bool) -> str:
    if not done.allocations:
        return "drained" if not waits else "draining: nothing is left"
    left = count_show(done.allocations, "session")
    if deadline_seconds is None:
        return f"draining: {left} left"
    return f"draining: {left} left, for {seconds_show(deadline_seconds)} at most"


def undrained(done: Done) -> str:
    return "takes new allocations" + (f" ({done.reason})" if done.reason else " again")
