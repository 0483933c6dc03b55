"""`manage.py relay_reload`: have the relays read their configuration again."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from relay.control.answers import Done
from relay.management.shell import RelayCommand
from relay.services.relays import relays_reload


class Command(RelayCommand):
    help = (
        "Have the relays read their configuration again; no call is dropped. A relay whose"
        " configuration cannot be used says why and keeps the one that it has."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--node", help="this relay only, by its name")

    def act(self, options: Mapping[str, Any]) -> None:
        node = options["node"]
        self.told_say(relays_reload(node=node), options, word, node=node)


def word(done: Done) -> str:
    if not done.is_done:
        return f"keeps what it has: {done.reason}"
    return f"reloaded: {', '.join(done.changed) or 'nothing had changed'}"
