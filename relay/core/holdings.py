"""What several processes of one relay hold together.

A relay of one process knows everything by itself and has no holdings. Of several, each serves the
clients of other networks, but a project's clients come from anywhere, and a relayed address of one
process may turn up as a client of another.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class QuotaExceeded(NamedTuple):
    """A quota that one more allocation would exceed.

    Attributes:
        of_credential: whether it is a credential's; else its project's.
        held: how many there are, in all processes.
        allowed: how many there may be; 0 where there is no room to count them.
    """

    of_credential: bool
    held: int
    allowed: int


class DrainHeld(NamedTuple):
    """A drain that holds for all processes.

    Attributes:
        ends_at: when it ends what is left, unix seconds; None where it waits.
    """

    ends_at: float | None


class Holdings(Protocol):
    """What this process tells the others, and asks of them. Nothing here waits for long."""

    def take(
        self,
        project: str,
        credential: str,
        project_max: int | None,
        credential_max: int | None,
    ) -> QuotaExceeded | None:
        """Count one more allocation, exactly, whatever the others do at the same time.

        Args:
            project: whose quota it is.
            credential: its id; empty where there is none.
            project_max: how many the project may hold; None for any number.
            credential_max: how many the credential may.

        Returns:
            None where it was counted; else the quota that is in its way, and nothing was counted.
        """

    def give_back(self, project: str, credential: str) -> None:
        """Undo one `take`."""

    def drain_set(self, drain: DrainHeld | None) -> None:
        """Say that there is a drain, or that there is none, for who is started again meanwhile."""

    def drain(self) -> DrainHeld | None:
        """The drain that there is; None where there is none."""

    def relayed_set(self, family: int, port: int, protocol: int) -> None:
        """Say that a relayed address is open, for the protocol that its peers speak; 0: closed."""

    def relayed_protocol(self, family: int, port: int) -> int:
        """The protocol of a relayed address of any process; 0 where it is not open."""
