"""What the relay's commands have in common: tables, times, and what to say of silent relays."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Project
from relay.control.answers import Done, Origin
from relay.core.credentials import USERNAME_LENGTH_MAX
from relay.publishing import ControlUnreachableError
from relay.selectors import nodes_live
from relay.services.relays import Told
from relay.templatetags.units import in_time

NOT_DONE: Final = 1
SOME_SILENT: Final = 3
INTERRUPTED: Final = 130  # as shells say it: 128 and SIGINT
GAP: Final = "  "
NOBODY: Final = (
    "no relay answers: see that one runs (`make run`, or `manage.py runrelay`) and that REDIS_URL"
    " is the same here and there"
)
PERHAPS_LATER: Final = (
    "; one that only stands still does it as soon as it goes on: look with `relay_status`"
)
VALKEY_AWAY: Final = (
    "Valkey does not answer: start it (`make run` brings one), or see that REDIS_URL names the"
    " one that the relays listen to"
)


class Column(NamedTuple):
    """One column of a table: its heading, and whether it is a number."""

    heading: str
    is_number: bool = False


class RelayCommand(BaseCommand, ABC):
    """A command that asks the relays; exit codes as below."""

    requires_system_checks = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """With the exit codes at the end of the help."""
        return super().create_parser(
            prog_name,
            subcommand,
            epilog="Exit codes: 0 done; 1 not done, or no relay answered; 2 wrong arguments;"
            " 3 done, but some relays did not answer.",
            **kwargs,
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """`--json`, which every one of them has."""
        parser.add_argument("--json", action="store_true", help="for programs: one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it; what stands in its way is one line that says what to do."""
        try:
            self.act(options)
        except ControlUnreachableError as error:
            raise CommandError(VALKEY_AWAY, returncode=NOT_DONE) from error

    @abstractmethod
    def act(self, options: Mapping[str, Any]) -> None:
        """What the command does."""

    def say(self, text: str) -> None:
        """Print a line, or several."""
        self.stdout.write(text)

    def say_json(self, document: Mapping[str, object]) -> None:
        """Print one document."""
        self.say(json.dumps(document, indent=2))

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """Print rows below their headings, each column as wide as it has to be."""
        for line in table_lines(columns, rows):
            self.say(line)

    def somebody_must_answer(
        self, answered: Iterable[Origin], silent: Sequence[Origin], *, ordered: bool = False
    ) -> None:
        """Say so and end where nobody did; what was `ordered` may still be done."""
        if any(True for _ in answered):
            return
        if silent:
            later = PERHAPS_LATER if ordered else ""
            raise CommandError(
                f"{silent_say(silent)}, and nobody else did{later}", returncode=NOT_DONE
            )
        raise CommandError(NOBODY, returncode=NOT_DONE)

    def node_must_be(self, node: str) -> None:
        """Say who there is, and end, where there are relays and none is called that."""
        names = nodes_live()
        if names and node not in names:
            raise CommandError(
                f"no relay is called {node}; there are: {', '.join(names)}", returncode=NOT_DONE
            )

    def silent_end(self, silent: Sequence[Origin]) -> None:
        """Name those that did not answer, and end with their exit code."""
        if silent:
            raise CommandError(silent_say(silent), returncode=SOME_SILENT)

    def told_say(
        self,
        told: Told,
        options: Mapping[str, Any],
        word: Callable[[Done], str],
        *,
        node: str | None = None,
    ) -> None:
        """Say what each relay made of it, and end with the exit code for that.

        Args:
            told: what they answered.
            options: of the command.
            word: what to say of one that answered.
            node: the relay that was meant; None: all of them.
        """
        if options["json"]:
            self.say_json(told_document(told))
        if node is not None and not (told.relays or told.silent):
            self.node_must_be(node)
        self.somebody_must_answer(told.relays, told.silent, ordered=True)
        if not options["json"]:
            rows = [(str(origin), word(done)) for origin, done in told.relays.items()]
            for line in table_lines((), rows):
                self.say(line)
        refused = [origin for origin, done in told.relays.items() if not done.is_done]
        if refused:
            names = ", ".join(map(str, refused))
            raise CommandError(f"not done by {names}", returncode=NOT_DONE)
        self.silent_end(told.silent)


def table_lines(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; without columns it has no headings, and all is text."""
    lines = [[column.heading for column in columns]] if columns else []
    lines += [list(row) for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)] if lines else []
    numbers = [column.is_number for column in columns] or [False] * len(widths)
    return [
        GAP.join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in lines
    ]


def told_document(told: Told) -> Mapping[str, object]:
    """For programs."""
    return {
        "relays": [
            {
                **origin._asdict(),
                "done": done.is_done,
                "reason": done.reason,
                "changed": list(done.changed),
                "allocations": done.allocations,
            }
            for origin, done in told.relays.items()
        ],
        "silent": silent_document(told.silent),
    }


def silent_document(silent: Iterable[Origin]) -> list[Mapping[str, object]]:
    """For programs."""
    return [origin._asdict() for origin in silent]


def silent_say(silent: Sequence[Origin]) -> str:
    """Who did not answer."""
    return "no answer from " + ", ".join(f"{origin} (boot {origin.boot})" for origin in silent)


def project_of(public_id: str | None) -> Project | None:
    """The project that was asked for; None where none was.

    Raises:
        CommandError: there is no such project.
    """
    if public_id is None:
        return None
    project = Project.objects.filter(public_id=public_id).first()
    if project is None:
        raise CommandError(
            f"there is no project {public_id!r}: the page of a project shows its id",
            returncode=NOT_DONE,
        )
    return project


def label_of(label: str) -> str:
    """The username, credential id or label that was asked for.

    Raises:
        CommandError: it is none.
    """
    if not label.strip() or len(label) > USERNAME_LENGTH_MAX or not label.isprintable():
        raise CommandError(
            f"that is no label: a username, credential id or label has 1 to {USERNAME_LENGTH_MAX}"
            " printable characters",
            returncode=NOT_DONE,
        )
    return label


def time_show(unix: float) -> str:
    """A time, for people and programs."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")


def seconds_show(seconds: float) -> str:
    """A duration, for people."""
    return in_time(timedelta(seconds=seconds))


def count_show(count: int, noun: str) -> str:
    """ "1 session", "2 sessions"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
