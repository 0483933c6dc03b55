"""`make compile`: what `relay.compiled` names, by mypyc and the C compiler of this machine."""

from __future__ import annotations

import fcntl
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
from setuptools.errors import CCompilerError

from relay.compiled import HOME, ROOT, build_directory, is_complete, sources

# Beyond -O2 it takes half as long again and runs no faster.
OPTIMISATION = "2"
MYPY_OPTIONS = ("--config-file=", "--explicit-package-bases", "--ignore-missing-imports")


def main() -> int:
    """Compile, and say so; returns the exit code."""
    missing = what_is_missing()
    if missing:
        print(f"cannot compile: {missing}; the relay runs as Python", file=sys.stderr)
        return 1
    print("compiling: this takes a minute or two, and mypyc's warnings are harmless", flush=True)
    try:
        directory = compile_all()
    except OSError as error:
        print(f"cannot compile: {error}; see that {HOME} can be written", file=sys.stderr)
        return 1
    except CCompilerError as error:  # it has said what; the message is its whole command
        print(f"cannot compile: the C compiler failed ({type(error).__name__})", file=sys.stderr)
        return 1
    print("compiled:", directory.relative_to(ROOT))
    return 0


def compile_all() -> Path:
    """Compile, unless it is done; returns where it lies.

    Raises:
        SystemExit: mypyc found something wrong, and has said what.
        CCompilerError: so did the C compiler.
        OSError: it cannot be written.
    """
    directory = build_directory()
    if is_complete(directory):
        return directory
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another one is waited for
        if not is_complete(directory):
            for old in HOME.glob("making-*"):  # of one that was killed
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=HOME, prefix="making-") as made:
                build(Path(made))
                os.sync()  # whatever happens to the machine, what has its name is whole
                for old in HOME.glob("[!m]*/"):
                    shutil.rmtree(old)
                (Path(made) / "lib").rename(directory)
    return directory


def what_is_missing() -> str:
    """What the machine lacks to compile, in words; empty: nothing."""
    compiler = " ".join(shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))[:1])
    if shutil.which(compiler) is None:
        packages = "gcc libc6-dev python3-dev"
        return (
            f"there is no C compiler, {compiler} (Debian, Ubuntu: apt install {packages};"
            " CC names another)"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are missing (Debian, Ubuntu: apt install python3-dev)"
    return ""


def build(made: Path) -> None:
    """Compile into `made`/lib, laid out as the root is."""
    with chdir(ROOT):  # by their places from here the modules have their names
        extensions = mypycify(
            [*MYPY_OPTIONS, f"--cache-dir={made / 'cache'}", *map(str, sources())],
            opt_level=OPTIMISATION,
            debug_level="0",
            multi_file=True,
            target_dir=str(made / "c"),
            group_name="relay",
        )
        for extension in extensions:
            extension.extra_compile_args.append("-Wno-error")  # another compiler warns of more
        distribution = Distribution({"name": "relay", "ext_modules": extensions})
        command = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(made / "lib"), str(made / "objects")
        command.ensure_finalized()
        command.run()


if __name__ == "__main__":
    sys.exit(main())
