"""The web application, for an ASGI server: pages through Django's handler, the API beside it.

What a page needs (sessions, CSRF, content security policy, a thread and a database connection of
its own) an API request does not, and it costs several times what minting a credential costs. So
the API's requests go straight to its views. They share one thread for the look-up of keys, and
that thread keeps its database connection.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Awaitable, Callable, Mapping
from io import BytesIO
from typing import Any

from django.core.asgi import get_asgi_application

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

# Static files are read whole before they are sent: they are small, and browsers keep them.
warnings.filterwarnings("ignore", "StreamingHttpResponse must consume synchronous iterators")

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mindmore.settings")
pages = get_asgi_application()

# ruff: noqa: E402 - these want Django set up
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.urls import resolve

from mindmore.api import BODY_BYTES_MAX, ROOT, bad_request, body_too_large, problem_response


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "http" and scope["path"].startswith(f"{ROOT}/"):
        await api_answer(scope, receive, send)
    else:
        await pages(scope, receive, send)


async def api_answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request of the API."""
    body = await body_read(receive)
    if body is None:
        return
    response = await api_respond(scope, body)
    headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
    headers.append((b"content-length", str(len(response.content)).encode()))
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": headers,
        }
    )
    await send({"type": "http.response.body", "body": response.content})


async def api_respond(scope: Scope, body: bytes) -> HttpResponse:
    """The answer to a request whose body has arrived, or has proved too long."""
    if len(body) > BODY_BYTES_MAX:
        return problem_response(body_too_large())
    try:
        request = ASGIRequest(scope, BytesIO(body))
    except UnicodeDecodeError:
        return problem_response(bad_request("The address is not UTF-8."))
    try:
        request.get_host()
    except DisallowedHost:
        return problem_response(bad_request("The Host header names no host of this service."))
    match = resolve(request.path_info)
    response: HttpResponse = await match.func(request, *match.args, **match.kwargs)
    return response


async def body_read(receive: Receive) -> bytes | None:
    """The request's body, or as much as shows that it is too long; None where the client left."""
    body = b""
    while len(body) <= BODY_BYTES_MAX:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body
