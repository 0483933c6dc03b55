"""The names that the control channel has in Valkey."""

from __future__ import annotations

from typing import Final

STREAM: Final = "mindmore:relay:control"
STREAM_LENGTH_MAX: Final = 10_000
STREAM_SECONDS_MAX: Final = 600  # what is older was read, or is in the database
FIELD: Final = b"message"
ANNOUNCED: Final = "mindmore:relay:usernames"  # a sorted set: when each may be forgotten
# A sorted set: the ids of one project's credentials whose usernames those are, by the same time.
ANNOUNCED_OF: Final = "mindmore:relay:usernames:{project}"
ALIVE: Final = "mindmore:relay:alive:{node}:{boot}"  # one for each process that listens
REPLY: Final = "mindmore:relay:reply:{reply_to}"  # a list of answers
