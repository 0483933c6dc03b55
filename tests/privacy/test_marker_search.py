"""The marker search finds what is planted: else it would prove nothing."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from django.db import connection

from tests.marker_search import CHUNK_BYTES, find_marker

MARKER = hashlib.sha256(b"a marker that stands nowhere else").digest()
ADDRESS = "198.51.100.77"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("text", f"seen at {ADDRESS}:4000"),
        ("inet", ADDRESS),
        ("jsonb", f'{{"peers": [["{ADDRESS}", 4000]]}}'),
        ("bytea", ADDRESS.encode()),
        ("text[]", f"{{{ADDRESS}}}"),
        ("bytea", b"before" + MARKER + b"after"),
        ("text", MARKER.hex().upper()),
        ("text", base64.b64encode(b"x" + MARKER + b"y").decode()),
    ],
)
def test_planted_value_is_found_in_a_table(column: str, value: str | bytes) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE planted (harmless int, value {column})")
        cursor.execute("INSERT INTO planted VALUES (1, %s)", [value])
    assert find_marker(connection, [], [ADDRESS, MARKER]) == ["table public.planted.value"]


@pytest.mark.django_db
def test_planted_value_is_found_in_a_partition(logs_table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE planted_rest PARTITION OF {logs_table} DEFAULT")
        cursor.execute(f"INSERT INTO {logs_table} VALUES (now(), %s)", [ADDRESS])
    assert find_marker(connection, [], [ADDRESS]) == ["table public.planted_rest.word"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "content",
    [
        MARKER,
        b"lead" + MARKER.hex().encode() + b"\n",
        MARKER.hex().upper().encode(),
        base64.b64encode(b"ab" + MARKER),
        b"\0" * (CHUNK_BYTES - 16) + MARKER,
    ],
)
def test_planted_value_is_found_in_a_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "deep").mkdir()
    planted = tmp_path / "deep" / "file.log"
    planted.write_bytes(content)
    (tmp_path / "harmless").write_bytes(bytes(range(250)) * 4)
    assert find_marker(connection, [tmp_path], [MARKER]) == [f"file {planted}"]


@pytest.mark.django_db
def test_absent_marker_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "harmless").write_bytes(bytes(range(250)) * 4)
    assert find_marker(connection, [tmp_path], [MARKER, ADDRESS]) == []
