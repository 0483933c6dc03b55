"""Keys are looked up together, and never from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import OperationalError, ProgrammingError, connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey
from accounts.services import api_key_create, api_key_revoke
from mindmore import key_lookup
from mindmore.key_lookup import key_find
from tests.relay.api.client import Api, Customer

UNKNOWN = "mm_aaaaaaaa_" + "A" * 43


def test_keys_that_come_together_cost_one_query(customer: Customer) -> None:
    other, other_key = api_key_create(project=customer.project, name="other")
    keys = [customer.key, other_key, UNKNOWN, "nonsense"] * 8

    async def ask() -> list[ApiKey | None]:
        return await asyncio.gather(*(key_find(key) for key in keys))

    with CaptureQueriesContext(connection) as queries:
        assert async_to_sync(ask)() == [customer.api_key, other, None, None] * 8
    assert len(queries) == 1


def test_key_that_comes_after_a_revocation_is_refused(customer: Customer) -> None:
    async def ask() -> list[ApiKey | None]:
        before = await key_find(customer.key)
        await sync_to_async(api_key_revoke)(api_key=customer.api_key)
        return [before, await key_find(customer.key)]

    assert async_to_sync(ask)() == [customer.api_key, None]


def test_request_that_is_given_up_takes_no_other_with_it(customer: Customer) -> None:
    async def ask() -> ApiKey | None:
        given_up = asyncio.create_task(key_find(customer.key))
        kept = asyncio.create_task(key_find(customer.key))
        await asyncio.sleep(0)
        given_up.cancel()
        return await kept

    assert async_to_sync(ask)() == customer.api_key


def table_rename(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


@contextmanager
def keys_locked() -> Iterator[None]:
    """Somebody else holds the table, as a migration does."""
    parameters = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    given = {name: parameters[name] for name in names if parameters.get(name)}
    with closing(psycopg2.connect(**given)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE accounts_apikey IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.django_db(transaction=True)
def test_unexpected_error_reaches_its_requests_and_no_other(customer: Customer) -> None:
    async def ask() -> list[ApiKey | BaseException | None]:
        await sync_to_async(table_rename)("accounts_apikey", "keys_away")
        early = [asyncio.create_task(key_find(key)) for key in (customer.key, UNKNOWN)]
        for _ in range(3):  # until their query stands in the line for the only thread
            await asyncio.sleep(0)
        back = asyncio.create_task(sync_to_async(table_rename)("keys_away", "accounts_apikey"))
        await asyncio.sleep(0)
        late = asyncio.create_task(key_find(customer.key))
        found = await asyncio.wait_for(asyncio.gather(*early, late, return_exceptions=True), 10)
        await back
        return [*found, await key_find(customer.key)]

    first, second, *others = async_to_sync(ask)()
    assert isinstance(first, ProgrammingError)
    assert isinstance(second, ProgrammingError)
    assert others == [customer.api_key, customer.api_key]


@pytest.mark.django_db(transaction=True)
def test_database_in_disorder_is_answered_with_503(customer: Customer) -> None:
    api = Api(customer)
    table_rename("accounts_apikey", "keys_away")
    try:
        answer = api.mint()
    finally:
        table_rename("keys_away", "accounts_apikey")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert api.mint().status == 201


@pytest.mark.django_db(transaction=True)
def test_look_up_does_not_wait_for_a_lock_for_ever(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_lookup, "STATEMENT_MILLISECONDS_MAX", 100)
    connection.close()  # the look-up makes its own
    try:
        with keys_locked(), pytest.raises(OperationalError, match="statement timeout"):
            async_to_sync(key_find)(customer.key)
        assert async_to_sync(key_find)(customer.key) == customer.api_key
    finally:
        connection.close()
