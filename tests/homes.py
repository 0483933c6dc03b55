"""Data directories that tests make."""

from __future__ import annotations

import shutil
from pathlib import Path


def home_remove(home: Path) -> None:
    """Remove a data directory, and what root's PostgreSQL keeps of it elsewhere."""
    database = home / "postgresql"
    if database.is_symlink():
        shutil.rmtree(database.resolve(), ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
