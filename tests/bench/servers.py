"""The two servers under measurement: how each is started, and what it costs.

coturn runs with one relay thread: the relay is one process on one core too, and both are bound
to the same core, the load generator to another. Logs, DTLS, database pings and the command line
interface are off.
"""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from tests.bench.network import Network
from tests.certificates import certificate_write

ROOT = Path(__file__).resolve().parents[2]
PORT = 3478
FILES_WANTED = 65536
START_SECONDS_MAX = 10
STOP_SECONDS_MAX = 15
STARTS_MAX = 3
PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    host: str
    pid: int
    cpu: int | None

    def cpu_seconds(self) -> float:
        """CPU time so far of all its threads, in user space and kernel, and its core's ksoftirqd.

        Packets that the server sends are delivered by the kernel in the server's own time,
        unless there are so many that ksoftirqd takes over: that counts with it too.
        """
        tasks = [task for pid in self.pids() for task in Path(f"/proc/{pid}/task").iterdir()]
        if self.cpu is not None and (ksoftirqd := ksoftirqd_find(self.cpu)):
            tasks.append(ksoftirqd)
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def rss_bytes(self) -> int:
        """Resident memory now."""
        pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in self.pids())
        return sum(map(int, pages)) * PAGE_BYTES

    def pids(self) -> list[int]:
        """Of the server and its own processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]


def ksoftirqd_find(cpu: int) -> Path | None:
    """The process directory of a core's softirq thread, where it can be seen."""
    if cpu not in KSOFTIRQD:
        wanted = f"ksoftirqd/{cpu}\n"
        found = (p for p in Path("/proc").glob("[0-9]*/comm") if comm_read(p) == wanted)
        KSOFTIRQD[cpu] = next((path.parent for path in found), None)
    return KSOFTIRQD[cpu]


def comm_read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


KSOFTIRQD: dict[int, Path | None] = {}
Command = Callable[[str, str, str, Path], tuple[list[str], dict[str, str]]]


def coturn_command(
    host: str, secret: str, _allowed: str, home: Path
) -> tuple[list[str], dict[str, str]]:
    """Debian's turnserver."""
    chain, key = certificate_write(home, "coturn")
    options = (
        f"--cert {chain} --pkey {key} "
        f"-n -L {host} -E {host} -p {PORT} -m 1 -r bench --use-auth-secret "
        f"--static-auth-secret {secret} --allow-loopback-peers --no-dtls "
        "--no-cli --no-auth-pings --no-dynamic-ip-list --no-dynamic-realms "
        f"--no-stdout-log --simple-log -l /dev/null --pidfile {home}/pid --db {home}/db "
        "--min-port 49152 --max-port 65535"
    )
    return ["turnserver", *options.split()], {}


def mindmore_command(
    host: str, secret: str, allowed: str, home: Path
) -> tuple[list[str], dict[str, str]]:
    """`manage.py runrelay`, which needs no database."""
    chain, key = certificate_write(home, "mindmore")
    environment = {
        "MINDMORE_TURN_CERTIFICATE": str(chain),
        "MINDMORE_TURN_CERTIFICATE_KEY": str(key),
        "MINDMORE_HOME": str(home),
        "MINDMORE_SECRET_KEY": secrets.token_hex(32),
        "MINDMORE_TURN_LISTEN_ADDRESS": host,
        "MINDMORE_TURN_RELAY_ADDRESS": host,
        "MINDMORE_TURN_PORT": str(PORT),
        "MINDMORE_TURN_SECRETS": secret,
        "MINDMORE_TURN_NONCE_KEYS": secrets.token_hex(32),
        "MINDMORE_TURN_REALM": "bench",
        "MINDMORE_TURN_RELAY_PORTS": "49152-65535",
        "MINDMORE_TURN_ALLOWED_PEERS": allowed,
        # Limits that are far away, and judged for every allocation and every packet all the same.
        "MINDMORE_TURN_PROJECT_ALLOCATIONS_MAX": "100000",
        "MINDMORE_TURN_PROJECT_BITRATE_KBPS_MAX": "10000000",
        "MINDMORE_TURN_CUT_OFF_SECONDS": "0",
    }
    return [sys.executable, str(ROOT / "manage.py"), "runrelay"], environment


def mindmore_2_command(
    host: str, secret: str, allowed: str, home: Path
) -> tuple[list[str], dict[str, str]]:
    """The same with two processes."""
    command, environment = mindmore_command(host, secret, allowed, home)
    return command, environment | {
        "MINDMORE_TURN_PROCESSES": "2",
        "MINDMORE_TURN_MOBILITY": "off",
    }


COMMANDS: dict[str, Command] = {
    "mindmore": mindmore_command,
    "mindmore-2": mindmore_2_command,
    "coturn": coturn_command,
}
SEVERAL = frozenset({"mindmore-2"})  # these are bound to no core


@contextmanager
def servers_running(
    names: tuple[str, str], network: Network, secret: str, *, cpu: int | None
) -> Iterator[tuple[Server, Server]]:
    """Start one server of each name, wait until both answer, stop them at the end."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(server_running(name, host, network, secret, cpu=cpu))
            for name, host in zip(names, network.servers, strict=True)
        )
        yield first, second


@contextmanager
def server_running(
    name: str, host: str, network: Network, secret: str, *, cpu: int | None
) -> Iterator[Server]:
    """One server, in its place and on its core; started anew where it does not get ready."""
    with tempfile.TemporaryDirectory(prefix="mmbench-") as directory:
        home = Path(directory)
        command, environment = COMMANDS[name](host, secret, network.allowed_peers, home)
        # What the caller's own service is set to must not reach the relay under test.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MINDMORE_")}
        for _ in range(STARTS_MAX):
            with (home / "output").open("w+") as output:
                process = subprocess.Popen(
                    [*network.server_command, *pinned(cpu), *command],
                    env={**inherited, **environment},
                    cwd=ROOT,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=files_limit_raise,
                )
            try:
                if ready_wait(host, network, secret, process):
                    yield Server(name, host, process.pid, cpu)
                    return
            finally:
                stop(process)
        raise SystemExit(f"{name} does not allocate:\n{(home / 'output').read_text()[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server, by force where it does not want to."""
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def pinned(cpu: int | None) -> tuple[str, ...]:
    """The words that bind a command to a core."""
    if cpu is None or shutil.which("taskset") is None:
        return ()
    return ("taskset", "--cpu-list", str(cpu))


def files_limit_raise() -> None:
    """Raise the limit of open files: every allocation is at least one socket."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, FILES_WANTED)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def ready_wait(host: str, network: Network, secret: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server makes an allocation; False where it does not."""
    probe = [*network.client_command, sys.executable, "-m", "tests.bench.probe"]
    deadline = monotonic() + START_SECONDS_MAX
    while monotonic() < deadline and process.poll() is None:
        done = subprocess.run(
            [*probe, host, str(PORT), secret], cwd=ROOT, capture_output=True, check=False
        )
        if done.returncode == 0:
            return True
        sleep(0.1)
    return False
