"""Sockets lie in a private directory with a path that every client can take."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mindmore.embedded.sockets import (
    LONGEST_NAME,
    SOCKET_PATH_MAX_BYTES,
    socket_directory,
    socket_directory_remove,
)


def long_path(tmp_path: Path) -> Path:
    return tmp_path / ("x" * SOCKET_PATH_MAX_BYTES)


def test_short_plain_path_is_used_itself(tmp_path: Path) -> None:
    assert socket_directory(tmp_path / "run") == tmp_path / "run"
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["x" * SOCKET_PATH_MAX_BYTES, "a,b", "a?b", "a%41", "é"])
def test_other_path_leads_to_a_short_private_one(tmp_path: Path, name: str) -> None:
    wanted = tmp_path / name
    try:
        directory = socket_directory(wanted)
        assert wanted.readlink() == directory
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert len(str(directory / LONGEST_NAME)) <= SOCKET_PATH_MAX_BYTES
        assert socket_directory(wanted) == directory
    finally:
        socket_directory_remove(wanted)
    assert not directory.exists()
    assert not wanted.is_symlink()


def test_directory_that_others_may_enter_is_not_used_again(tmp_path: Path) -> None:
    wanted = long_path(tmp_path)
    before = socket_directory(wanted)
    before.chmod(0o755)
    try:
        assert socket_directory(wanted) != before
    finally:
        before.rmdir()
        socket_directory_remove(wanted)
