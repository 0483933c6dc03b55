"""Settings for what reads the code and runs nothing: mypy, `makemigrations --check`."""

from __future__ import annotations

import os

for name in ("MINDMORE_SECRET_KEY", "MINDMORE_TURN_SECRETS", "MINDMORE_TURN_NONCE_KEYS"):
    os.environ.setdefault(name, "nothing is ever kept under this one")

from mindmore.settings import *  # noqa: E402, F403
