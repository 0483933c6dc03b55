"""Only registered cookies leave this service (claim S-16)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from privacy.cookies import cookie_register

logger = logging.getLogger(__name__)

Answer = Callable[[HttpRequest], HttpResponseBase]
AsyncAnswer = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


@sync_and_async_middleware
def unregistered_cookies_removed(get_response: Answer | AsyncAnswer) -> Answer | AsyncAnswer:
    """Take every Set-Cookie that the register does not know out of the answer, and report it.

    Stands before all other middleware, so that it sees what they set. The report names the cookie,
    not what it held nor for whom.
    """
    registered = frozenset(cookie.name for cookie in cookie_register())

    if iscoroutinefunction(get_response):
        return _async_answer(cast("AsyncAnswer", get_response), registered)
    return _sync_answer(cast("Answer", get_response), registered)


def _async_answer(get_response: AsyncAnswer, registered: frozenset[str]) -> AsyncAnswer:
    async def answer(request: HttpRequest) -> HttpResponseBase:
        return _cleaned(await get_response(request), registered)

    return answer


def _sync_answer(get_response: Answer, registered: frozenset[str]) -> Answer:
    def answer(request: HttpRequest) -> HttpResponseBase:
        return _cleaned(get_response(request), registered)

    return answer


def _cleaned(response: HttpResponseBase, registered: frozenset[str]) -> HttpResponseBase:
    for name in set(response.cookies).difference(registered):
        del response.cookies[name]
        logger.error("removed a cookie that is not in the register: %s", name)
    return response
