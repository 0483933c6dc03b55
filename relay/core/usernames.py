"""Announced usernames by their hash, for clients that send USERHASH (RFC 8489 section 14.4)."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from relay.core.integrity import userhash


class Usernames:
    """Announced usernames; those that end first give way where there are too many.

    Attributes:
        by_hash: a hash cannot be turned back, so each was announced before it can be known.
    """

    def __init__(self, realm: str, usernames_max: int) -> None:
        self.by_hash: dict[bytes, str] = {}
        self._realm = realm
        self._usernames_max = usernames_max
        self._until: dict[bytes, float] = {}
        # When each may be forgotten; of two at once, the one that came first.
        self._forget: list[tuple[float, int, bytes]] = []
        self._announced = 0

    def announce(self, username: str, until: float = inf) -> None:
        """Make a username known until then (unix seconds), or for longer where it is already."""
        name = userhash(username, self._realm)
        if until <= self._until.get(name, -inf):
            return
        if name not in self.by_hash and len(self.by_hash) >= self._usernames_max:
            self._drop_first()
        self.by_hash[name] = username
        self._until[name] = until
        self._announced += 1
        heappush(self._forget, (until, self._announced, name))
        if len(self._forget) > 2 * self._usernames_max:  # announced again and again
            self._forget = [
                entry for entry in self._forget if self._until.get(entry[2]) == entry[0]
            ]
            heapify(self._forget)

    def forget(self, unix_now: float) -> None:
        """Forget those whose time is over."""
        while self._forget and self._forget[0][0] <= unix_now:
            self._pop()

    def _drop_first(self) -> None:
        before = len(self.by_hash)
        while self._forget and len(self.by_hash) == before:
            self._pop()

    def _pop(self) -> None:
        until, _, name = heappop(self._forget)
        if self._until.get(name) == until:
            del self._until[name], self.by_hash[name]
