"""`manage.py relay_explain LABEL`: why did this call fail?"""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.utils import timezone

from relay.core.policy import Refusal as PeerRule
from relay.core.refusals import KEPT_SECONDS
from relay.management.shell import (
    Column,
    RelayCommand,
    label_of,
    project_of,
    seconds_show,
    silent_document,
    time_show,
)
from relay.selectors import LiveRefusals, LiveStatus, refusals_live, relays_live

COLUMNS: Final = (
    Column("LAST (UTC)"),
    Column("TIMES", is_number=True),
    Column("RELAY"),
    Column("CREDENTIAL"),
    Column("REQUEST"),
    Column("CODE", is_number=True),
    Column("WHY"),
)
NOT_KEPT: Final = (
    "A wrong password is not kept: see that the client reaches the relay, with both words unchanged"
)
ALLOWED_PEERS: Final = (
    f"{PeerRule.SPECIAL_PURPOSE.value}: no address of the internet; MINDMORE_TURN_ALLOWED_PEERS"
    " opens those that calls need"
)


class Command(RelayCommand):
    help = "Say why requests were refused in the last quarter of an hour, and by which rule."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("label", metavar="LABEL", help="a username, credential id or label")
        parser.add_argument("--project", metavar="PRJ", help="of this project only, by its id")

    def act(self, options: Mapping[str, Any]) -> None:
        label, project = label_of(options["label"]), project_of(options["project"])
        live = refusals_live(label=label, project=project)
        forgetful = young(relays_live(), timezone.now().timestamp())
        if options["json"]:
            self.say_json(document(live, forgetful))
        self.somebody_must_answer(live.answered, live.silent)
        if not options["json"]:
            self.show(live, forgetful)
        self.silent_end(live.silent)

    def show(self, live: LiveRefusals, forgetful: Sequence[str]) -> None:
        """What was refused, how often and when last; `forgetful`: who cannot know all of it."""
        if live.refusals:
            self.table(COLUMNS, rows(live))
        else:
            since = "since then" if forgetful else f"in the last {KEPT_SECONDS // 60} minutes"
            for line in forgetful:
                self.say(line)
            self.say(f"nothing was refused to it {since}. {NOT_KEPT}")
            return
        if any(refusal.rule == PeerRule.SPECIAL_PURPOSE.value for _, refusal in live.refusals):
            self.say(ALLOWED_PEERS)
        for line in forgetful:
            self.say(line)


def rows(live: LiveRefusals) -> list[Sequence[str]]:
    """One for all that are alike, in the order of the last of each."""
    last: dict[tuple[str, ...], float] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for origin, refusal in live.refusals:
        what = (
            *(str(origin), refusal.credential, refusal.method, str(refusal.code)),
            refusal.rule,
        )
        last[what] = refusal.occurred_at  # the oldest come first
        counts[what] += 1
    ordered = sorted(last, key=lambda what: last[what])
    return [(time_show(last[what]), f"{counts[what]:,}", *what) for what in ordered]


def young(live: LiveStatus, unix_now: float) -> list[str]:
    """A line for each relay that was started so late that it cannot know all that was asked."""
    return [
        f"{origin} has run for {seconds_show(unix_now - status.started_at)} only, and remembers"
        " nothing from before"
        for origin, status in live.relays.items()
        if unix_now - status.started_at < KEPT_SECONDS
    ]


def document(live: LiveRefusals, forgetful: Sequence[str]) -> Mapping[str, object]:
    return {
        "incomplete": list(forgetful),
        "refusals": [
            {**origin._asdict(), **refusal._asdict()} for origin, refusal in live.refusals
        ],
        "silent": silent_document(live.silent),
    }
