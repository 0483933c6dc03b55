"""Looking API keys up for many requests at once, without remembering any.

A look-up costs as much as all the rest of a request. So the keys of requests that come in while
one look-up is under way go into the next one together: under load one query answers many
requests, and every query starts after the request that it answers, so that a revoked key is
refused at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import InterfaceError, OperationalError, connection

from accounts.models import ApiKey
from accounts.selectors import api_keys_authenticate

# One that waits for a lock holds up all requests: they get an error instead, and ask again.
STATEMENT_MILLISECONDS_MAX: Final = 5000


class KeyLookup:
    """The look-ups of one event loop."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[ApiKey | None]] = {}
        self.task: asyncio.Task[None] | None = None

    async def find(self, key: str) -> ApiKey | None:
        """The live API key that `key` is the text of, with its project; None where there is none.

        Raises:
            Exception: what the look-up raised; a `django.db.Error` as a rule.
        """
        loop = asyncio.get_running_loop()
        answer = self.waiting.setdefault(key, loop.create_future())
        if self.task is None:
            self.task = loop.create_task(self._work())
        # Shielded: others may wait for the same answer when this request is given up.
        return await asyncio.shield(answer)

    async def _work(self) -> None:
        """Look up all that waits, until nothing does."""
        try:
            while self.waiting:
                answers, self.waiting = self.waiting, {}
                await answers_give(answers)
        finally:
            self.task = None
            for answer in self.waiting.values():  # only where this task was cancelled
                answer.cancel()
            self.waiting.clear()


async def answers_give(answers: Mapping[str, asyncio.Future[ApiKey | None]]) -> None:
    """Look the keys up and resolve every answer, whatever happens: nobody waits for ever."""
    try:
        found = await sync_to_async(keys_find)(answers.keys())
    except Exception as error:
        for answer in answers.values():
            answer.set_exception(error)
    except BaseException:
        for answer in answers.values():
            answer.cancel()
        raise
    else:
        for key, answer in answers.items():
            answer.set_result(found.get(key))


def keys_find(keys: Collection[str]) -> dict[str, ApiKey]:
    """Find keys over this thread's connection, which may have been lost since its last use."""
    try:
        return keys_ask(keys)
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block or connection.is_usable():
            raise
        connection.close()
        return keys_ask(keys)


def keys_ask(keys: Collection[str]) -> dict[str, ApiKey]:
    """One query; a connection that is made for it gives no statement more than its time."""
    if connection.connection is None:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = %s", [STATEMENT_MILLISECONDS_MAX])
    return api_keys_authenticate(keys=keys)


_LOOKUPS: WeakKeyDictionary[asyncio.AbstractEventLoop, KeyLookup] = WeakKeyDictionary()


async def key_find(key: str) -> ApiKey | None:
    """`KeyLookup.find` of the running event loop."""
    return await _LOOKUPS.setdefault(asyncio.get_running_loop(), KeyLookup()).find(key)
