"""A program of the tests that loads the relay itself, with the relay compiled where that is asked.

    python -m tests.as_configured MODULE ARGUMENT...

MINDMORE_TURN_COMPILED asks, as it does of `manage.py runrelay`.
"""

from __future__ import annotations

import os
import runpy
import sys

from relay.compiled import compiled_use, is_used

if __name__ == "__main__":
    if os.environ.get("MINDMORE_TURN_COMPILED") == "on":
        compiled_use()
        assert is_used(), "`make compile` first"
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
