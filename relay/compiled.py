"""The part of the relay that every packet and every request passes, as machine code.

`make compile` has mypyc make C of these very files, and keeps what comes of it under a name that
tells which files, and which Python, it is of. Where there is none for the files as they are now,
Python runs them as they are: a change is never answered by what was compiled before it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from relay.log import log

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "build" / "compiled"
SHARED = "relay__mypyc"  # the module that holds all the code
SUFFIX = EXTENSION_SUFFIXES[0]  # names this Python, its version and the platform
# What a datagram or a request passes; not what opens and guards the ways in, where little is to be
# had and mypyc takes some of it wrong.
COMPILED = (
    *("core/*.py", "core/requests/*.py", "metering/*.py", "watching/observation.py"),
    *(f"transports/{name}.py" for name in ("messages", "moderation", "receiver", "relayed")),
    *(f"transports/{name}.py" for name in ("rings", "sending", "udp")),
)


def sources() -> list[Path]:
    """The files that are compiled, from the root."""
    found = {path for pattern in COMPILED for path in (ROOT / "relay").glob(pattern)}
    files = (path for path in found if path.is_file() and path.name != "__init__.py")
    return sorted(path.relative_to(ROOT) for path in files)


def build_directory() -> Path:
    """Where what is compiled of the files as they are now lies, or would lie.

    Its name tells of all of the relay: constants of files that are not compiled are in it too.
    """
    digest = hashlib.sha256(SUFFIX.encode())
    for pattern in ("relay/**/*.py", "deploy/compile.py", "requirements/compile.txt"):
        for source in sorted(ROOT.glob(pattern)):
            if source.is_file():  # and no lock of an editor's
                name = str(source.relative_to(ROOT)).encode()
                digest.update(b"\0%s\0%s" % (name, source.read_bytes()))
    return HOME / digest.hexdigest()[:16]


def is_complete(directory: Path) -> bool:
    """Whether there is something compiled in it."""
    return (directory / (SHARED + SUFFIX)).is_file()


class CompiledFinder(MetaPathFinder):
    """Finds compiled modules before their sources.

    Args:
        directory: laid out as the root is.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where the module lies; None: not here."""
        place = self._directory / (fullname.replace(".", "/") + SUFFIX)
        return spec_from_file_location(fullname, place) if place.is_file() else None


def compiled_use() -> None:
    """From now on import what is compiled, if it is there; before the relay is imported.

    The log says why not, where something has been compiled and is not used.
    """
    if is_used() or not any(HOME.glob("*/relay")):
        return
    directory = build_directory()
    if not is_complete(directory):
        not_used_log("it is of other sources")
        return
    modules = {".".join(source.with_suffix("").parts) for source in sources()}
    assert not modules & sys.modules.keys(), "what is loaded as Python would stay so"
    finder = CompiledFinder(directory)
    sys.meta_path.insert(0, finder)
    try:
        import_module(SHARED)
    except ImportError as error:
        sys.meta_path.remove(finder)
        not_used_log(f"it cannot be loaded: {error}")


def not_used_log(reason: str) -> None:
    """Say that the relay runs as Python all the same."""
    log("compiled_not_used", level="warning", reason=reason)


def is_used() -> bool:
    """Whether this process imports what is compiled."""
    return any(isinstance(finder, CompiledFinder) for finder in sys.meta_path)
