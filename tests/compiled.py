"""A pytest plugin: the tests run what `make compile` makes, and not the relay's Python.

`pytest -p tests.compiled tests/relay`. It compiles first, where that is still to be done. Tests
that replace a part of the relay are left out.
"""

from __future__ import annotations

import os

import pytest

from deploy.compile import compile_all, what_is_missing
from relay.compiled import compiled_use, is_used

MISSING = what_is_missing()
if not MISSING:
    compile_all()
    compiled_use()
    assert is_used()


def pytest_configure() -> None:
    """End before the first test where nothing can be compiled, and say why."""
    if MISSING:
        pytest.exit(
            f"the compiled relay is not tested: {MISSING}",
            returncode=1 if os.environ.get("MINDMORE_TESTS_NO_SKIPS") else 0,
        )


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Leave out what cannot be run on a compiled relay."""
    left_out = [item for item in items if item.get_closest_marker("replaces_parts")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
