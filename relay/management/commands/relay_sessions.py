"""`manage.py relay_sessions`: the sessions that live at this moment, on all relays."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any, Final

from django.utils import timezone

from relay.control.answers import LiveSession
from relay.management.shell import (
    Column,
    RelayCommand,
    count_show,
    label_of,
    project_of,
    seconds_show,
    silent_document,
)
from relay.selectors import LiveSessions, sessions_live
from relay.templatetags.units import in_bytes

COLUMNS: Final = (
    Column("SESSION"),
    Column("PROJECT"),
    Column("CREDENTIAL"),
    Column("VIA"),
    Column("AGE", is_number=True),
    Column("TO CLIENT", is_number=True),
    Column("FROM CLIENT", is_number=True),
    Column("PEERS", is_number=True),
)
ADDRESSES: Final = (Column("CLIENT"), Column("RELAYED"))


class Command(RelayCommand):
    help = "List the sessions that live now. Addresses of people are shown with --addresses only."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--project", metavar="PRJ", help="of this project only, by its id")
        parser.add_argument("--label", help="of this username, credential id or label only")
        parser.add_argument(
            "--addresses",
            action="store_true",
            help="with the addresses of clients, which are personal data, and relayed ones",
        )

    def act(self, options: Mapping[str, Any]) -> None:
        live = sessions_live(
            project=project_of(options["project"]),
            label="" if options["label"] is None else label_of(options["label"]),
            with_addresses=options["addresses"],
        )
        if options["json"]:
            self.say_json(document(live))
            self.somebody_must_answer(live.answered, live.silent)
        else:
            self.somebody_must_answer(live.answered, live.silent)
            self.show(live, with_addresses=options["addresses"])
        self.silent_end(live.silent)

    def show(self, live: LiveSessions, *, with_addresses: bool) -> None:
        if live.sessions:
            columns = (*COLUMNS, *ADDRESSES) if with_addresses else COLUMNS
            unix_now = timezone.now().timestamp()
            self.table(columns, (row(each, unix_now, with_addresses) for each in live.sessions))
        more = f", and {live.left_off:,} more that are not shown" if live.left_off else ""
        relays = count_show(len(live.answered), "relay process").replace("processs", "processes")
        self.stderr.write(f"{count_show(len(live.sessions), 'session')} on {relays}{more}")


def row(session: LiveSession, unix_now: float, with_addresses: bool) -> tuple[str, ...]:
    via = session.transport + ("" if session.protocol == "udp" else f", peers {session.protocol}")
    cells = (
        session.name,
        session.project,
        session.credential,
        via,
        seconds_show(unix_now - session.started_at),
        in_bytes(session.client_sent_bytes),
        in_bytes(session.client_received_bytes),
        str(session.peers),
    )
    return (*cells, session.client, session.relayed) if with_addresses else cells


def document(live: LiveSessions) -> Mapping[str, object]:
    return {
        "sessions": [
            {
                "session": session.name,
                **{name: value for name, value in session._asdict().items() if value != ""},
            }
            for session in live.sessions
        ],
        "left_off": live.left_off,
        "silent": silent_document(live.silent),
    }
