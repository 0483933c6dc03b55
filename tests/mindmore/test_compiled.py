"""`make compile`, on a relay of one small file; what the whole of it does `make test` shows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.compile import what_is_missing
from tests.skips import skip

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 120
SOURCE = "def double(number: int) -> int:\n    return 2 * number\n"
ASK = (
    "from relay.compiled import compiled_use, is_used; compiled_use();"
    "from relay.core import small; print(small.double(2), small.__file__, is_used())"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with what compiles, and one file that is compiled."""
    for name in ("relay/compiled.py", "relay/log.py", "relay/__init__.py", "deploy/compile.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "relay" / "core").mkdir()
    (tmp_path / "relay" / "core" / "small.py").write_text(SOURCE)
    return tmp_path


def python(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def compile_or_skip(tree: Path) -> None:
    if missing := what_is_missing():
        skip(missing)
    done = python(tree, "-m", "deploy.compile")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("compiled: build/compiled/")


def answer(tree: Path) -> list[str]:
    return python(tree, "-c", ASK).stdout.split()


def test_without_a_build_the_sources_run(tree: Path) -> None:
    assert answer(tree) == ["4", str(tree / "relay" / "core" / "small.py"), "False"]


def test_what_is_compiled_is_used_until_its_source_changes(tree: Path) -> None:
    compile_or_skip(tree)
    (build,) = (tree / "build" / "compiled").glob("*/")
    number, place, used = answer(tree)
    assert (number, used) == ("4", "True")
    assert place.startswith(str(build / "relay" / "core" / "small."))
    assert place.endswith(".so")

    source = tree / "relay" / "core" / "small.py"
    source.write_text(SOURCE.replace("2 *", "3 *"))
    assert answer(tree) == ["6", str(source), "False"]
    assert '"reason": "it is of other sources"' in python(tree, "-c", ASK).stderr
    compile_or_skip(tree)
    assert answer(tree)[::2] == ["6", "True"]
    assert not build.exists()

    (tree / "relay" / "constants.py").write_text("")  # of which something may be compiled in
    assert answer(tree)[::2] == ["6", "False"]
    (tree / "relay" / "constants.py").unlink()

    source.write_text("def double(number: int) -> int:\n    return 'four'\n")
    done = python(tree, "-m", "deploy.compile")
    assert done.returncode != 0
    assert "small.py:2" in done.stdout + done.stderr
    source.write_text(SOURCE.replace("2 *", "3 *"))
    assert answer(tree)[::2] == ["6", "True"]


def test_compiling_that_is_killed_leaves_nothing_half_made(tree: Path) -> None:
    compiler = tree / "compiler"
    compiler.write_text("#!/bin/sh\nkill -9 $PPID\n")
    compiler.chmod(0o700)
    assert python(tree, "-m", "deploy.compile", CC=str(compiler)).returncode == -signal.SIGKILL
    assert len(list((tree / "build" / "compiled").glob("making-*/c"))) == 1
    assert answer(tree)[::2] == ["4", "False"]
    compile_or_skip(tree)
    assert answer(tree)[::2] == ["4", "True"]
    assert len(list((tree / "build" / "compiled").glob("*/"))) == 1


def test_what_cannot_be_loaded_is_named_and_not_used(tree: Path) -> None:
    compile_or_skip(tree)
    (shared,) = tree.glob("build/compiled/*/relay__mypyc*.so")
    shared.write_text("half of it")
    assert answer(tree)[::2] == ["4", "False"]
    assert '"compiled_not_used", ' in (said := python(tree, "-c", ASK).stderr)
    assert '"reason": "it cannot be loaded: ' in said
    shared.unlink()
    assert answer(tree)[::2] == ["4", "False"]
    compile_or_skip(tree)
    assert answer(tree)[::2] == ["4", "True"]


def test_compiler_that_fails_is_said_in_one_line(tree: Path) -> None:
    done = python(tree, "-m", "deploy.compile", CC="false")
    assert done.returncode == 1
    assert done.stderr == "cannot compile: the C compiler failed (CompileError)\n"
    assert not list((tree / "build" / "compiled").glob("*/"))


def test_lock_of_an_editor_stops_nothing(tree: Path) -> None:
    (tree / "relay" / "core" / ".#small.py").symlink_to("somebody@somewhere.1")
    compile_or_skip(tree)
    assert answer(tree)[::2] == ["4", "True"]


def test_relay_that_is_loaded_already_is_not_compiled_in_part(tree: Path) -> None:
    compile_or_skip(tree)
    done = python(tree, "-c", f"import relay.core.small; {ASK}")
    assert "AssertionError: what is loaded as Python would stay so" in done.stderr


def test_without_a_compiler_it_says_which(tree: Path) -> None:
    done = python(tree, "-m", "deploy.compile", CC="no-such-compiler -pthread")
    assert done.returncode == 1
    assert done.stderr == (
        "cannot compile: there is no C compiler, no-such-compiler (Debian, Ubuntu: apt install gcc"
        " libc6-dev python3-dev; CC names another); the relay runs as Python\n"
    )
