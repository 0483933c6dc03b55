"""A pytest plugin: the tests run what `make compile` makes, and not the relay's Python.

`pytest -p tests.compiled tests/relay`. It compiles first, where that is still to be done.
"""

from __future__ import annotations

import os

import pytest

from deploy.compile import compile_all, what_is_missing
from relay.compiled import compiled_use

if missing := what_is_missing():
    pytest.exit(
        f"the compiled relay is not tested: {missing}",
        returncode=1 if os.environ.get("MINDMORE_TESTS_NO_SKIPS") else 0,
    )
compile_all()
compiled_use()
