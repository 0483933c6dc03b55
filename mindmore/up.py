"""`manage.py up`: the whole service of one installation, in the foreground.

    PostgreSQL, Valkey (unless DATABASE_URL, REDIS_URL name others)
    -> `manage.py prepare` (migrations, static files, demo)
    -> relay, web, worker, beat

It installs nothing, and loads neither Django nor Celery: what needs them runs as a child.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from mindmore.embedded.postgres import postgres_prepare
from mindmore.embedded.sockets import socket_directory_remove
from mindmore.embedded.valkey import valkey_prepare
from mindmore.environment import Environment
from mindmore.installation import (
    addresses_write,
    home_create,
    home_lock,
    secrets_create,
)
from mindmore.probes import http_answers, port_check, ports_apart, stun_answers
from mindmore.processes import Command, StartError, end_with_parent
from mindmore.supervisor import StopRequested, Supervisor
from mindmore.variables import unknown_warnings

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_SECONDS_MAX = 60.0  # PostgreSQL may have to replay a log after a crash
READY_SECONDS_MAX = 60.0
# Within five seconds: the relay first, it writes down its last usage; the data last.
STOP_STAGES = (
    (("relay",), 1.5),
    (("prepare", "worker", "beat", "web"), 3.2),
    (("valkey", "postgres"), 4.2),
)
STOP_SECONDS_MAX = 4.4
NAME_WIDTH = len("postgres")
WITH_PARENT = "--with-parent"
MINT = (
    "curl -sS {web_url}/api/v1/credentials -H 'Authorization: Bearer {api_key}'"
    """ -H 'Content-Type: application/json' -d '{{"ttl": 3600}}'"""
)
RELAY = (
    MINT + " | python3 -c 'import json, sys; c = json.load(sys.stdin);"
    """ print(c["username"], c["credential"])'"""
    ' | {{ read -r user password; turnutils_uclient -y -u "$user" -w "$password"'
    " -p {turn_port} {turn_host}; }}"
)
INTRODUCTION = """
  Dashboard   {web_url}/dashboard/
  Log in      {email}
  Password    {password}
  API key     {api_key}
"""
FIRST_CALL = f"""\
  Mint credentials:
  {MINT}

  Relay through them (turnutils_uclient comes with coturn):
  {RELAY}
"""


class Up:
    """One run of the service."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.home = env.home
        self.listeners = env.listeners()
        self.site_url = env.site_url()
        self.database_url = env.database_url()
        self.redis_url = env.redis_url()

    def run(self, started_at: float) -> None:
        """Start everything, say so, watch over it, end it.

        Raises:
            StartError: it does not come up; nothing is left running.
        """
        for line in unknown_warnings({**self.env.files, **self.env.process}):
            say("mindmore", line)
        home_create(self.home)
        lock = home_lock(self.home)
        self._check_ports()
        secrets_create(self.env)
        self.supervisor = Supervisor(say, inherit=[lock])
        try:
            self._start_data()
            self._start_service()
            self._introduce(time.monotonic() - started_at)
            self.supervisor.watch()
            say("mindmore", "ending")
        except StopRequested:
            say("mindmore", "ending before all was ready")
        finally:
            self.supervisor.stop(STOP_STAGES, STOP_SECONDS_MAX)
            socket_directory_remove(self.home / "run")

    def _check_ports(self) -> None:
        at = self.listeners
        ports_apart(
            {
                "MINDMORE_WEB_PORT": at.web_port,
                "MINDMORE_TURN_PORT": at.turn_port,
                "MINDMORE_TURN_TLS_PORT": at.turn_tls_port or 0,
                "MINDMORE_TURN_METRICS_PORT": at.metrics_port,
            }
        )
        port_check(
            socket.SOCK_STREAM,
            at.web_host,
            at.web_port,
            names=("MINDMORE_WEB_HOST", "MINDMORE_WEB_PORT"),
        )
        ports = [("MINDMORE_TURN_PORT", at.turn_port), ("MINDMORE_TURN_TLS_PORT", at.turn_tls_port)]
        for address in at.turn_addresses:
            for name, port in ports:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM) if port else ():
                    names = ("MINDMORE_TURN_LISTEN_ADDRESS", name)
                    port_check(kind, address, port or 0, names=names)

    def _start_data(self) -> None:
        """PostgreSQL and Valkey, where nobody has named others."""
        say("mindmore", f"data directory {self.home}")
        addresses = {}
        children = []
        if not self.redis_url:
            valkey = valkey_prepare(self.home)
            addresses["REDIS_URL"] = valkey.url
            children.append(self.supervisor.start(valkey.command, valkey.is_ready))
        if not self.database_url:
            if not (self.home / "postgresql" / "data").exists():
                say("mindmore", "making the database")
            postgres = postgres_prepare(self.home)
            addresses["DATABASE_URL"] = postgres.url
            children.append(self.supervisor.start(postgres.command, postgres.is_ready))
        addresses_write(self.home, addresses)
        self.supervisor.wait_until_ready(children, DATA_SECONDS_MAX)

    def _start_service(self) -> None:
        """Relay, web, worker and beat, on a database that fits the code."""
        at = self.listeners
        # Needs no database: its start and the migrations use one processor each.
        relay = self.supervisor.start(
            self._command(
                "relay", "manage.py", "runrelay", orphan_signal=signal.SIGTERM, reloads=True
            ),
            lambda: stun_answers(at.turn_addresses[0], at.turn_port),
        )
        self.supervisor.run_to_end(self._command("prepare", "manage.py", "prepare"))
        web = self.supervisor.start(
            self._command(
                *("web", "-m", "uvicorn", "mindmore.asgi:application"),
                *("--host", at.web_host, "--port", str(at.web_port)),
                *("--no-access-log", "--no-server-header", "--log-level", "warning"),
                *("--timeout-graceful-shutdown", "1"),
            ),
            lambda: http_answers(at.web_host, at.web_port, "/healthz", host=self._host()),
        )
        celery = ("-m", "celery", "--quiet", "--app")
        worker = self.supervisor.start(
            self._command(
                *(
                    "worker",
                    *celery,
                    "mindmore.celery",
                    "worker",
                    "--pool",
                    "solo",
                    "--loglevel",
                    "WARNING",
                ),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            )
        )
        schedule = str(self.home / "beat" / "schedule")
        beat = self.supervisor.start(
            self._command(
                *("beat", *celery, "mindmore.beat", "beat", "--loglevel", "WARNING"),
                *("--schedule", schedule, "--pidfile", ""),
            )
        )
        self.supervisor.wait_until_ready((relay, web, worker, beat), READY_SECONDS_MAX)

    def _command(
        self,
        name: str,
        *arguments: str,
        orphan_signal: signal.Signals = signal.SIGKILL,
        reloads: bool = False,
    ) -> Command:
        """One of our own programs, in Python."""
        environment = {
            **os.environ,
            "MINDMORE_HOME": str(self.home),
            "DJANGO_SETTINGS_MODULE": "mindmore.settings",
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "2",  # threads share memory pools: less of it
        }
        return Command(
            name=name,
            argv=(sys.executable, *arguments),
            environment=environment,
            directory=BASE_DIR,
            orphan_signal=orphan_signal,
            noise=("Warm shutdown",),
            reloads=reloads,
        )

    def _host(self) -> str:
        """A Host header that the web application accepts."""
        return urlsplit(self.site_url).netloc

    def _introduce(self, seconds: float) -> None:
        """Say where to go; in production without secrets, as this is kept in a log."""
        if self.env.demo() and self.env.production():
            say("mindmore", f"what opens the demo organisation is in {self.home / 'demo.json'}")
        elif self.env.demo():
            demo = json.loads((self.home / "demo.json").read_text())
            shown = {
                "password": demo["password"] or "was changed: you know it",
                "api_key": demo["api_key"] or "was revoked: make one on the page of a project",
            }
            tell(INTRODUCTION.format(**{**demo, **shown}))
            if demo["api_key"]:
                tell(FIRST_CALL.format(**demo))
        tell(f"ready: {self.site_url}/ after {seconds:.1f} seconds; Ctrl-C ends it")


def say(name: str, line: str) -> None:
    """Print one line of a child, or of ourselves."""
    tell(f"{name:{NAME_WIDTH}} | {line}")


def tell(text: str) -> None:
    """Print; where nobody listens any more (`make run | head`), go on in silence."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: list[str]) -> int:
    """Run the service until someone ends it.

    Args:
        argv: `manage.py up`; with `--with-parent` it also ends when the process that started it
            does (`make run` passes that: killing make ends the service).

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 where the service can't start.
    """
    if WITH_PARENT in argv:
        end_with_parent(signal.SIGTERM)
    started_at = time.monotonic()
    try:
        env = Environment.load_given(default_home=BASE_DIR / ".mindmore")
        Up(env).run(started_at)
    except (StartError, ImproperlyConfigured) as error:
        print(f"mindmore: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(
            f"mindmore: cannot use {error.filename} ({error.strerror}): start as the account that "
            "made it, or set MINDMORE_HOME to a directory of this account's own",
            file=sys.stderr,
        )
        return 1
    except OSError as error:  # a full disk
        print(f"mindmore: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    return 0
