"""What a failure leaves on stderr, and what whoever asked is told."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import OperationalError
from django.http import HttpRequest
from django.test import Client

from mindmore import views
from mindmore.logs import OneLine

ROOT = Path(__file__).resolve().parent.parent.parent
PERSONAL = "dana-marker@example.org"


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [OneLine().format(record) for record in caplog.records]


@pytest.fixture
def strict_client() -> Client:
    """A client that gets the page that a browser gets."""
    return Client(raise_request_exception=False)


def break_landing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(request: HttpRequest, *args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(views, "render", broken)


def test_failed_request_is_one_line_without_personal_data(
    strict_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_landing(monkeypatch, RuntimeError(PERSONAL))
    answer = strict_client.get(f"/?email={PERSONAL}")
    assert answer.status_code == 500
    [line] = lines(caplog)
    assert line.startswith("error: GET /: RuntimeError at ")
    assert "tests/mindmore/test_logs.py:" in line
    assert "marker" not in line
    assert "\n" not in line


def test_keys_in_an_address_are_not_logged(
    strict_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: HttpRequest) -> None:
        raise RuntimeError

    monkeypatch.setattr(views, "outbox_guard", broken)
    strict_client.get("/outbox/secret-key/")
    [line] = lines(caplog)
    assert line.startswith("error: GET /outbox/<name>/: RuntimeError at ")


def test_page_without_database_is_503_and_says_when_to_try_again(
    strict_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_landing(monkeypatch, OperationalError(f'connection to "{PERSONAL}" failed'))
    answer = strict_client.get("/")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "in a moment" in answer.content.decode()
    assert lines(caplog) == ["error: GET /: the database does not answer (OperationalError)"]


def test_failed_job_is_one_line() -> None:
    try:
        raise OperationalError(PERSONAL)
    except OperationalError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", ("x",), sys.exc_info())
    record.data = {"name": "relay.tasks.ship"}
    assert OneLine().format(record) == (
        "error: job relay.tasks.ship: the database does not answer (OperationalError)"
    )


def test_message_of_many_lines_gives_its_first() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "one\ntwo", (), None)
    assert OneLine().format(record) == "warning: one"


def test_command_without_database_says_so_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "purge"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("the database does not answer (OperationalError)")
