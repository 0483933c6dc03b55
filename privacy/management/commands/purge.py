"""`manage.py purge`: what retention would delete, or with `--execute` deletes."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, date, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from privacy.retention.engine import Outcome, holders


class Command(BaseCommand):
    help = "Print what is past its retention period; with --execute, delete it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--execute", action="store_true", help="delete what is due now")
        parser.add_argument(
            "--as-of",
            type=date.fromisoformat,
            metavar="YYYY-MM-DD",
            help="print what will be due on that day; never together with --execute",
        )

    def handle(self, *args: Any, execute: bool, as_of: date | None, **options: Any) -> None:
        if execute and as_of:
            raise CommandError("--as-of is a preview: it does not go together with --execute")
        now = timezone.now()
        if as_of:
            now = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
        outcomes = holders.purge(now=now) if execute else holders.plan(now=now)
        for outcome in outcomes:
            self.stdout.write(_line(outcome, executed=execute))
        gone = [outcome for outcome in outcomes if not outcome.part.kept_because]
        rows = sum(outcome.part.rows for outcome in gone)
        self.stdout.write(
            f"{'deleted' if execute else 'due'}: {len(gone)} parts, {rows} rows; "
            f"kept: {len(outcomes) - len(gone)}"
        )


def _line(outcome: Outcome, *, executed: bool) -> str:
    part = outcome.part
    verdict = "deleted" if executed else "due"
    if part.kept_because:
        verdict = f"kept ({part.kept_because})"
    return f"{outcome.holder}: {part.name}, {part.rows} rows, {outcome.retention_class}: {verdict}"
