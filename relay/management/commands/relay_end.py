"""`manage.py relay_end SESSION`: end one session now."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from relay.management.shell import NOT_DONE, RelayCommand, told_document
from relay.services.control import ControlError
from relay.services.relays import session_end_now

ALLOCATION_DIGITS_MAX = 15


class Command(RelayCommand):
    help = "End one session. `relay_sessions` shows what it is called."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("session", metavar="SESSION", help="as in node-1/5f0c9a7e1b2d3c4f/17")

    def act(self, options: Mapping[str, Any]) -> None:
        name = options["session"]
        node, boot, allocation = session_read(name)
        try:
            told = session_end_now(node=node, boot=boot, allocation=allocation, now=timezone.now())
        except ControlError as error:
            raise CommandError(str(error), returncode=NOT_DONE) from error
        if options["json"]:
            self.say_json(told_document(told))
        if not told.relays:
            self.node_must_be(node)
            raise CommandError(
                f"{node} does not run with that boot any more, so the session is over; where it"
                " only stands still, it ends the session as soon as it goes on",
                returncode=NOT_DONE,
            )
        (done,) = told.relays.values()
        if not done.is_done:
            raise CommandError(
                f"{name} does not live: it has ended already, or never was",
                returncode=NOT_DONE,
            )
        if not options["json"]:
            self.say(f"{name} has ended")


def session_read(name: str) -> tuple[str, str, int]:
    """Node, boot and number.

    Raises:
        CommandError: it is not of that form.
    """
    node, _, rest = name.partition("/")
    boot, _, allocation = rest.partition("/")
    is_number = allocation.isascii() and allocation.isdecimal()
    if not (node and boot and is_number and len(allocation) <= ALLOCATION_DIGITS_MAX):
        raise CommandError(
            f"{name!r} is no session: it is called as in node-1/5f0c9a7e1b2d3c4f/17, and"
            " `manage.py relay_sessions` lists them",
            returncode=NOT_DONE,
        )
    return node, boot, int(allocation)
