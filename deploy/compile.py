"""`make compile`: what `relay.compiled` names, by mypyc and the C compiler of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from contextlib import chdir
from pathlib import Path

from mypyc.build import mypycify
from setuptools import Distribution

from relay.compiled import HOME, ROOT, build_directory, sources

# Beyond -O2 it takes half as long again and runs no faster.
OPTIMISATION = "2"
MYPY_OPTIONS = ("--config-file=", "--explicit-package-bases", "--ignore-missing-imports")


def main() -> int:
    """Compile, and say so; returns the exit code."""
    missing = what_is_missing()
    if missing:
        print(f"cannot compile: {missing}; the relay runs as Python", file=sys.stderr)
        return 1
    print("compiled:", compile_all().relative_to(ROOT))
    return 0


def compile_all() -> Path:
    """Compile, unless it is done; returns where it lies.

    Raises:
        SystemExit: mypyc or the C compiler found something wrong, and has said what.
    """
    directory = build_directory()
    if directory.is_dir():
        return directory
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="making-") as made:
        build(Path(made))
        for old in HOME.iterdir():
            if old.name != Path(made).name:
                shutil.rmtree(old)
        (Path(made) / "lib").rename(directory)
    return directory


def what_is_missing() -> str:
    """What the machine lacks to compile, in words; empty: nothing."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler, {compiler} (Debian, Ubuntu: apt install gcc libc6-dev)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are missing (Debian, Ubuntu: apt install python3-dev)"
    return ""


def build(made: Path) -> None:
    """Compile into `made`/lib, laid out as the root is."""
    with chdir(ROOT):  # by their places from here the modules have their names
        extensions = mypycify(
            [*MYPY_OPTIONS, *map(str, sources())],
            opt_level=OPTIMISATION,
            debug_level="0",
            multi_file=True,
            target_dir=str(made / "c"),
            group_name="relay",
        )
        distribution = Distribution({"name": "relay", "ext_modules": extensions})
        command = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(made / "lib"), str(made / "objects")
        command.ensure_finalized()
        command.run()


if __name__ == "__main__":
    sys.exit(main())
