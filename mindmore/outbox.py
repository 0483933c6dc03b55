"""Mail of a development installation: a directory instead of the internet.

One file per mail, `<microseconds since 1970>-<random>.eml`, so that names sort by time.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.policy import default as default_policy
from email.utils import parsedate_to_datetime
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils import timezone


class EmailBackend(BaseEmailBackend):
    """Writes each mail to `settings.OUTBOX_DIRECTORY`."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Store the mails, readable by their owner only; returns how many."""
        directory: Path = settings.OUTBOX_DIRECTORY
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for message in email_messages:
            microseconds = int(timezone.now().timestamp() * 1_000_000)
            path = directory / f"{microseconds}-{secrets.token_hex(4)}.eml"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(message.message().as_bytes())
        return len(email_messages)


@dataclass(frozen=True)
class Mail:
    """A mail of the outbox, as a person reads it."""

    name: str
    recipient: str
    subject: str
    sent_at: datetime
    body: str


def mails_before(moment: datetime) -> list[Path]:
    """The files of the mails that were written before a moment."""
    paths = settings.OUTBOX_DIRECTORY.glob("*.eml")
    return [path for path in paths if path.stat().st_mtime < moment.timestamp()]


def mail_list() -> list[Mail]:
    """The mails of the outbox, the newest first."""
    paths = sorted(settings.OUTBOX_DIRECTORY.glob("*.eml"), reverse=True)
    return [mail_read(path) for path in paths]


def mail_for(name: str) -> Mail | None:
    """The mail of that name; None where there is none."""
    return next((mail for mail in mail_list() if mail.name == name), None)


def mail_read(path: Path) -> Mail:
    """Parse one file of the outbox."""
    message = message_from_bytes(path.read_bytes(), policy=default_policy)
    body = message.get_body(preferencelist=("plain", "html"))
    return Mail(
        name=path.stem,
        recipient=str(message["To"]),
        subject=str(message["Subject"]),
        sent_at=parsedate_to_datetime(str(message["Date"])),
        body=str(body.get_content()) if body is not None else "",
    )
