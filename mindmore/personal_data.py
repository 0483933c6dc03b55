"""What the outbox of a development installation holds about people, and how long.

In production nothing is written there; what an earlier profile left goes in its time all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mindmore.outbox import mails_before
from privacy.registry import Category, Purpose, registry
from privacy.retention.classes import SIGN_IN
from privacy.retention.engine import Holder, Part, holders

OUTBOX = "files: outbox of a development installation"

registry.register_place(
    OUTBOX,
    category=Category.ACCOUNT,
    purposes=(Purpose.PROVIDE,),
    retention=SIGN_IN,
    personal={"To": "email address", "body": "unused confirmation links"},
)


def outbox_due(now: datetime) -> Sequence[Part]:
    """Mails older than the period."""
    assert SIGN_IN.period is not None
    before = now - SIGN_IN.period
    count = len(mails_before(before))
    return [Part(f"before {before:%Y-%m-%dT%H:%MZ}", before, count)] if count else []


def outbox_purge(part: Part) -> int:
    """Delete them; answers how many."""
    mails = mails_before(part.before)
    for mail in mails:
        mail.unlink(missing_ok=True)
    return len(mails)


holders.register(Holder("mindmore.outbox", SIGN_IN, (OUTBOX,), outbox_due, outbox_purge))
