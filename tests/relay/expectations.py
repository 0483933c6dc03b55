"""What tests of the relay expect of it, said once."""

from __future__ import annotations

import pytest

from tests.turn_client import TurnError


def refused(code: int) -> pytest.RaisesExc[TurnError]:
    """The server answers with this error."""
    return pytest.raises(TurnError, check=lambda error: error.code == code)
