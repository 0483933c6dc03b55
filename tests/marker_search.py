"""Finding a marker wherever it may have come to rest: in any table, in any file.

For tests that relay a marker, or an address, and then show that it is nowhere. A needle is text or
bytes; it is looked for as it stands and in the forms in which databases and logs keep bytes (hex,
base64), without regard to case where the form has none.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2.sql import SQL, Identifier

CHUNK_BYTES = 1 << 20

Needle = str | bytes


def find_marker(
    connection: BaseDatabaseWrapper, directories: Iterable[Path], needles: Sequence[Needle]
) -> list[str]:
    """Where any of `needles` is found: "table public.notes.word" or "file /path", sorted.

    Every column of every table, partition and materialised view is read as text (text, inet, JSON,
    bytea as hex), and every regular file below `directories` as bytes. Files that vanish meanwhile
    are passed over.
    """
    return [*_find_in_tables(connection, needles), *find_in_files(directories, needles)]


def _find_in_tables(connection: BaseDatabaseWrapper, needles: Sequence[Needle]) -> Iterator[str]:
    words = sorted({form.decode().lower() for needle in needles for form in _text_forms(needle)})
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT nspname, relname, attname
              FROM pg_class
              JOIN pg_namespace ON pg_namespace.oid = relnamespace
              JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
             WHERE relkind IN ('r', 'm')
               AND nspname NOT IN ('pg_catalog', 'information_schema')
               AND nspname NOT LIKE 'pg\\_toast%'
             ORDER BY 1, 2, attnum
            """
        )
        columns: list[tuple[str, str, str]] = cursor.fetchall()
        for schema, table, column in columns:
            query = SQL(
                "SELECT EXISTS (SELECT FROM {} WHERE EXISTS ("
                "SELECT FROM unnest(%s) AS word WHERE strpos(lower({}::text), word) > 0))"
            ).format(Identifier(schema, table), Identifier(column))
            cursor.execute(query.as_string(cursor.cursor), [words])
            if cursor.fetchone() == (True,):
                yield f"table {schema}.{table}.{column}"


def find_in_files(directories: Iterable[Path], needles: Sequence[Needle]) -> Iterator[str]:
    """Where any of `needles` is found in a file below `directories`, as `find_marker` says it."""
    forms = {form for needle in needles for form in _file_forms(needle)}
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink() and _file_has(path, forms):
                yield f"file {path}"


def _file_has(path: Path, forms: set[bytes]) -> bool:
    overlap_bytes = max(map(len, forms)) - 1
    tail = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                text = tail + chunk
                if any(form in text for form in forms):
                    return True
                tail = text[-overlap_bytes:] if overlap_bytes else b""
    except FileNotFoundError:
        pass
    return False


def _raw(needle: Needle) -> bytes:
    return needle.encode() if isinstance(needle, str) else needle


def _text_forms(needle: Needle) -> Iterator[bytes]:
    """As a column shows it in text: itself where it is text, hex, base64."""
    raw = _raw(needle)
    if raw.isascii() and raw.decode().isprintable():
        yield raw
    yield raw.hex().encode()
    yield from _base64_forms(raw)


def _file_forms(needle: Needle) -> Iterator[bytes]:
    raw = _raw(needle)
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield from _base64_forms(raw)


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """What of the base64 of a longer text stays the same, for each of three places in it."""
    for lead in range(3):
        encoded = base64.b64encode(b"\0" * lead + raw)
        whole = (lead + len(raw)) // 3 * 4
        core = encoded[(0, 2, 3)[lead] : whole]
        if len(core) >= 8:
            yield core
