"""The API over real HTTP: uvicorn in a process of its own, as `manage.py up` starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection

from accounts.services import api_key_revoke
from tests.ports import free_port
from tests.relay.api.client import PATH, Answer, Api, Customer, Description, customer_make

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS_MAX = 30

pytestmark = pytest.mark.django_db(transaction=True)


class Web:
    """A web server on the tests' database."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(
        self,
        method: str = "POST",
        path: str = PATH,
        body: bytes | Iterator[bytes] = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        client = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            client.request(method, path, body, headers or {})
            return answer_of(client.getresponse())
        finally:
            client.close()

    def mint(self, key: str, body: bytes = b"{}", **headers: str) -> Answer:
        return self.send(body=body, headers=request_headers(key) | headers)


def request_headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def answer_of(response: HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


@contextmanager
def web_running(environment: dict[str, str]) -> Iterator[Web]:
    port = free_port()
    command = ("uvicorn", "mindmore.asgi:application", "--port", str(port), "--no-access-log")
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield Web(port)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=10)
        sys.stdout.write(output.decode())


@pytest.fixture
def web(transactional_db: None) -> Iterator[Web]:
    """On the tests' database; what its URL does not say, libpq reads from the environment."""
    settings = connection.settings_dict
    parts = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD"}
    environment = {name: str(settings[part]) for name, part in parts.items() if settings[part]}
    with web_running(environment | {"DATABASE_URL": f"postgresql:///{settings['NAME']}"}) as web:
        yield web


@pytest.fixture
def customer(transactional_db: None) -> Customer:
    return customer_make()


def test_credential_is_minted_over_http(web: Web, customer: Customer) -> None:
    description = Description(web.send("GET", "/api/v1/openapi.json").json)
    answer = web.mint(customer.key, b'{"ttl": 60}', Cookie="session=x; csrf=y")
    assert answer.status == 201
    description.check(answer)
    assert sorted(answer.headers) == [
        "cache-control",
        "content-length",
        "content-type",
        "date",
        "server",
        "x-content-type-options",
    ]


def test_answers_are_those_of_the_test_client(web: Web, customer: Customer) -> None:
    api = Api(customer)
    for method, path, body, content_type in (
        ("POST", PATH, b"", "application/json"),
        ("POST", PATH, b"{", "application/json"),
        ("POST", PATH, b'{"ttl": 1}', "application/json"),
        ("POST", PATH, b'{"tll": 1}', "application/json"),
        ("POST", PATH, b"{}", "text/plain"),
        ("POST", PATH, b" " * 5000, "application/json"),
        ("POST", f"{PATH}?ttl=60", b"{}", "application/json"),
        ("GET", PATH, b"", "application/json"),
        ("GET", "/api/v1/elsewhere", b"", "application/json"),
        ("GET", "/api/v1/%ff", b"", "application/json"),
    ):
        headers = request_headers(customer.key) | {"Content-Type": content_type}
        over_http = web.send(method, path, body, headers)
        inside = api.send(body, method=method, path=path, content_type=content_type)
        assert (over_http.status, path) == (inside.status, path)
        if over_http.status >= 400:
            assert over_http.body == inside.body
            assert over_http.headers["content-type"] == "application/problem+json"
            assert over_http.headers["cache-control"] == "no-store"


def test_revoked_key_is_refused_at_once(web: Web, customer: Customer) -> None:
    assert web.mint(customer.key).status == 201
    api_key_revoke(api_key=customer.api_key)
    assert web.mint(customer.key).status == 401


def test_body_without_a_length_is_cut_off_at_the_limit(web: Web, customer: Customer) -> None:
    answer = web.send(body=iter([b" " * 1000] * 10), headers=request_headers(customer.key))
    assert answer.status == 413


def test_connection_is_kept_for_the_next_request(web: Web, customer: Customer) -> None:
    client = HTTPConnection("127.0.0.1", web.port, timeout=10)
    client.connect()
    first = client.sock
    for _ in range(3):
        client.request("POST", PATH, b"{}", request_headers(customer.key))
        assert answer_of(client.getresponse()).status == 201
    assert client.sock is first
    client.close()


def test_lost_database_connection_is_made_anew(web: Web, customer: Customer) -> None:
    assert web.mint(customer.key).status == 201
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"  # not a vacuum that happens to run
        )
        assert cursor.rowcount == 1
    assert web.mint(customer.key).status == 201


def test_absent_database_is_a_passing_fault(tmp_path: Path, customer: Customer) -> None:
    url = f"postgresql:///mindmore?host={quote(str(tmp_path), safe='')}"
    with web_running({"DATABASE_URL": url}) as web:
        answer = web.mint(customer.key)
    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"


def test_concurrent_requests_each_get_their_own_answer(web: Web, customer: Customer) -> None:
    keys = [customer.key, "mm_aaaaaaaa_" + "A" * 43, customer.key, "nonsense"] * 8
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(web.mint, keys))
    assert [answer.status for answer in answers] == [201, 401, 201, 401] * 8
    minted = [answer.json["id"] for answer in answers if answer.status == 201]
    assert len(set(minted)) == 16


def test_pages_are_still_djangos(web: Web) -> None:
    answer = web.send("GET", "/")
    assert answer.status == 200
    assert "content-security-policy" in answer.headers
    assert json.loads(web.send("GET", "/api/v1/openapi.json").body)["openapi"]


def test_other_host_is_refused_with_a_problem_document(web: Web) -> None:
    answer = web.send("GET", "/api/v1/openapi.json", headers={"Host": "evil.example"})
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Host header" in answer.json["detail"]
    assert web.send("GET", "/api/v1/openapi.json", headers={"Host": "localhost"}).status == 200


def test_further_hosts_leave_the_sites_own_and_this_machine() -> None:
    with web_running({"MINDMORE_ALLOWED_HOSTS": "turn.example.org"}) as web:
        for host in ("turn.example.org", "localhost", "127.0.0.1"):
            answer = web.send("GET", "/api/v1/openapi.json", headers={"Host": host})
            assert answer.status == 200
