"""Which versions a relay has: so that nothing is lost, and nothing older undoes what is newer.

Every change that the database keeps gets the next number there, and numbers follow each other in
the order in which the changes were committed, without a gap (`relay.services.control`). They are
published after that, one by one, so two may arrive the other way round, and one that could not be
published does not arrive at all.

    has 5 ── 6 arrives ──▶ applied, has 6
    has 5 ── 7 arrives ──▶ applied and kept ahead; something is missing
                 6 arrives ──▶ applied, then 7 once more; has 7
                 6 never arrives ──▶ a snapshot of all that is newer than 5; has 7
"""

from __future__ import annotations

from relay.control.messages import ControlMessage, Envelope

KEPT_MAX = 1000


class Ledger:
    """What one relay has applied.

    Attributes:
        has: every change up to this version.
    """

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self.has = 0
        self._kept_max = kept_max
        self._ahead: dict[int, ControlMessage] = {}
        self._meanwhile: dict[int, ControlMessage] | None = None
        self._since: int | None = None  # of a snapshot that has to be read (again)
        self._asked_with: frozenset[int] = frozenset()
        self._has_no_room = False
        self._was_refused = False

    @property
    def is_missing_some(self) -> bool:
        """Whether a version lies between what it has and what has come."""
        return bool(self._ahead) or self._has_no_room

    def take(self, envelope: Envelope) -> list[ControlMessage]:
        """A message has come.

        Returns:
            What is to be applied now, in this order.
        """
        version, message = envelope.version, envelope.message
        if version is None:
            return [message]
        if version <= self.has:
            return []
        if self._meanwhile is not None:
            self._keep(self._meanwhile, version, message)
        if version > self.has + 1:
            self._keep(self._ahead, version, message)
            return [message, *in_order(self._ahead, version)]
        self.has = version
        later = in_order(self._ahead, version)
        self._join()
        return [message, *later]

    def _keep(self, kept: dict[int, ControlMessage], version: int, message: ControlMessage) -> None:
        if len(kept) < self._kept_max:
            kept[version] = message
        else:
            self._has_no_room = True

    def _join(self) -> None:
        """What was ahead and no longer is, as nothing lies between, is had."""
        while self._ahead.pop(self.has + 1, None) is not None:
            self.has += 1

    def refused(self, since: int) -> None:
        """Something newer than `since` was to be applied and there was no room for it.

        The next snapshot has it again, and so on until there is; nothing is in a hurry for that.
        """
        self._since = since if self._since is None else min(self._since, since)
        self._was_refused = True

    # --- snapshots --------------------------------------------------------------------------------

    def snapshot_begins(self) -> int:
        """A snapshot is about to be read; perhaps again, as the last one was not read to its end.

        Returns:
            The version from which on it is needed.
        """
        if self._since is None:
            self._since = self.has
        if self._meanwhile is None:
            self._meanwhile = {}
        self._asked_with = frozenset(self._ahead)
        self._has_no_room = self._was_refused = False
        return self._since

    def begin_anew(self) -> None:
        """It is another database: its versions are not those that were had."""
        self.has = self._since = 0
        self._ahead = {}
        self._meanwhile = {}

    def snapshot_ends(self, version: int) -> list[ControlMessage]:
        """Everything up to `version`, the newest that the database had, was applied.

        What had come before the snapshot was begun and is newer than the database itself, the
        database never said: it is no longer waited for.

        Returns:
            What came meanwhile, to be applied once more: the snapshot may have been older.
        """
        meanwhile, self._meanwhile = self._meanwhile or {}, None
        for number in self._asked_with:
            self._ahead.pop(number, None)
        again = in_order({**self._ahead, **meanwhile}, version)
        self.has = max(self.has, version)
        self._ahead = {n: message for n, message in self._ahead.items() if n > self.has}
        self._join()
        # Else something that came meanwhile was not kept, or something found no room.
        if not self._has_no_room and not self._was_refused:
            self._since = None
        return again


def in_order(kept: dict[int, ControlMessage], version: int) -> list[ControlMessage]:
    """What is newer than `version`, the oldest first."""
    return [kept[number] for number in sorted(kept) if number > version]
