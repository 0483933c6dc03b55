"""An io_uring for tests, where the machine has it."""

from __future__ import annotations

from relay.transports.rings import Ring, RingUnavailableError
from tests.skips import skip


def ring_or_skip() -> Ring:
    """A ring of this thread."""
    try:
        return Ring()
    except RingUnavailableError as error:
        skip(f"no io_uring here: {error}")
