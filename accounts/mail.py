"""Mail that could not be handed to a mail server."""

from __future__ import annotations


class MailUnsentError(Exception):
    """The mail server is away or refused; whoever asked for the mail may try again."""
