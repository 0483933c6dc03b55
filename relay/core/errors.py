"""What can go wrong with bytes from the network."""

from __future__ import annotations


class MalformedMessageError(Exception):
    """The bytes are not the message they claim to be; the caller counts and drops them."""
