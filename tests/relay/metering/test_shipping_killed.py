"""Shipping: nothing lost and nothing counted twice, whoever dies at whatever moment."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from django.db import connection

from accounts.models import Organisation
from accounts.services import project_create
from mindmore.embedded.postgres import Postgres, postgres_prepare
from mindmore.processes import spawn
from relay.metering.journal import Journal
from relay.metering.records import SessionRecord
from relay.models import AuthenticationEvent, QuarantinedRecord, Session
from relay.models import UsageRecord as UsageRow
from relay.services.shipping import journal_ship
from relay.services.usage import usage_roll_up
from tests.homes import home_remove
from tests.relay.metering.examples import NOW, call, hours, segments

ROOT = Path(__file__).parents[3]
SECONDS_MAX = 60


def busy_journal(directory: Path, project: str) -> int:
    """Three relays, one of them alive, 120 calls; returns the bytes sent to clients."""
    sent = 0
    for boot in ("b1", "b2", "b3"):
        journal = Journal(directory=directory, node="node-1", boot=boot)
        for allocation in range(40):
            records = call(
                project, boot=boot, allocation=allocation, intervals=4, sent=100 + allocation
            )
            session = records[0]
            assert isinstance(session, SessionRecord)
            # The calls of one relay have one event each; each of these is told to be its first.
            records[0] = session._replace(authentication=allocation + 1)
            for record in records:
                journal.append(record)
            journal.flush()
            sent += 4 * (104 + allocation)
        if boot != "b3":
            journal.close()
    return sent


def shippers_start(
    directory: Path, database_url: str, count: int = 1
) -> list[subprocess.Popen[bytes]]:
    """Shippers that all begin now: none is done while another one gets ready."""
    shippers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.relay.metering.shipper", str(directory)],
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": database_url,
                "DJANGO_SETTINGS_MODULE": "mindmore.settings",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(count)
    ]
    for shipper in shippers:
        assert shipper.stdout is not None
        assert shipper.stdout.readline() == b"ready\n"
        shipper.stdout.close()
    for shipper in shippers:
        assert shipper.stdin is not None
        shipper.stdin.write(b"\n")
        shipper.stdin.close()
    return shippers


def this_database_url() -> str:
    """The database that this test process uses."""
    values = connection.settings_dict
    host = quote(str(values["HOST"]), safe="")
    port = f":{values['PORT']}" if values["PORT"] else ""
    password = f":{quote(values['PASSWORD'], safe='')}" if values["PASSWORD"] else ""
    return f"postgresql://{values['USER']}{password}@{host}{port}/{values['NAME']}"


def patience(kills: int) -> float:
    """How much longer to wait after so many.

    At first nobody is done before he is killed; a slow machine must get somewhere in the end.
    """
    return (1 + kills) / 6


@pytest.mark.django_db(transaction=True)
def test_shippers_killed_at_any_moment_lose_nothing_and_count_nothing_twice(
    tmp_path: Path,
) -> None:
    project = project_create(organisation=Organisation.objects.create(name="Acme"), name="Calls")
    sent = busy_journal(tmp_path, project.public_id)
    url = this_database_url()
    kills = 0
    while segments(tmp_path):
        shippers = shippers_start(tmp_path, url, 2)
        time.sleep((0.02 + secrets.randbelow(100) / 1000) * patience(kills))
        for shipper in shippers:
            shipper.kill()
            kills += shipper.wait() == -signal.SIGKILL
    assert kills > 1
    (last,) = shippers_start(tmp_path, url)
    assert last.wait(SECONDS_MAX) == 0
    assert hours() == {project.public_id: sent}
    assert UsageRow.objects.count() == 120 * 5
    assert Session.objects.count() == AuthenticationEvent.objects.count() == 120
    assert not Session.objects.filter(ended_at=None).exists()
    assert not QuarantinedRecord.objects.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["node-1-b3"]


@pytest.mark.django_db(transaction=True)
def test_two_shippers_and_two_roll_ups_at_once_count_once(tmp_path: Path) -> None:
    project = project_create(organisation=Organisation.objects.create(name="Acme"), name="Calls")
    sent = busy_journal(tmp_path, project.public_id)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while segments(tmp_path):
                journal_ship(directory=tmp_path, now=NOW)
                usage_roll_up()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS_MAX)
    assert errors == []
    assert hours() == {project.public_id: sent}
    assert UsageRow.objects.count() == 120 * 5


class Database:
    """A PostgreSQL of the test's own, to be killed."""

    def __init__(self, home: Path) -> None:
        home.chmod(0o711)
        self.home = home
        self.server: Postgres | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start it, wait until it answers, return its URL."""
        self.server = postgres_prepare(self.home)
        with (self.home / "postgres.log").open("ab") as log:
            self.process = spawn(self.server.command, output=log.fileno())
        wait_until(self.server.is_ready)
        return self.server.url

    def kill(self) -> None:
        """The immediate stop: no process finishes anything."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(SECONDS_MAX)

    def query(self, sql: str) -> object:
        """The one value of a query."""
        assert self.server is not None
        with (
            closing(psycopg2.connect(self.server.url)) as session,
            session,
            session.cursor() as cursor,
        ):
            cursor.execute(sql)
            row = cursor.fetchone()
            assert row is not None
            return row[0]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    home = tmp_path_factory.mktemp("database")
    database = Database(home)
    try:
        yield database
    finally:
        if database.process is not None and database.process.poll() is None:
            database.kill()
        home_remove(home)


@pytest.mark.timeout(600)
def test_postgresql_killed_at_any_moment_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, database: Database
) -> None:
    url = database.start()
    environment = {**os.environ, "DATABASE_URL": url}
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity=0"],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    database.query(
        "WITH o AS (INSERT INTO accounts_organisation (public_id, name, created_at)"
        " VALUES ('org_a', 'Acme', now()) RETURNING id)"
        " INSERT INTO accounts_project (organisation_id, public_id, name,"
        " credential_ttl_seconds_max, created_at)"
        " SELECT id, 'prj_abcdefghijkl', 'Calls', 60, now() FROM o RETURNING id"
    )
    sent = busy_journal(tmp_path, "prj_abcdefghijkl")
    (shipper,) = shippers_start(tmp_path, url)
    kills = 0
    while shipper.poll() is None:
        time.sleep((0.05 + secrets.randbelow(150) / 1000) * patience(kills))
        if shipper.poll() is None:
            database.kill()
            kills += 1
            database.start()
    assert shipper.returncode == 0
    assert kills > 1
    assert database.query("SELECT sum(client_sent_bytes) FROM relay_usagehour") == sent
    assert database.query("SELECT sum(client_sent_bytes) FROM relay_session") == sent
    assert database.query("SELECT count(*) FROM relay_usagerecord") == 120 * 5
    assert database.query("SELECT count(*) FROM relay_authenticationevent") == 120
    assert database.query("SELECT count(*) FROM relay_quarantinedrecord") == 0
