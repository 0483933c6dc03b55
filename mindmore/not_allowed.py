"""What a browser is shown where an address does not take its method."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.urls import URLPattern, URLResolver

View = Callable[..., Any]


def not_allowed_pages(patterns: Iterable[URLPattern | URLResolver]) -> None:
    """Give each view under `patterns` a page where Django would answer 405 with nothing."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            not_allowed_pages(pattern.url_patterns)
        else:
            pattern.callback = not_allowed_page(pattern.callback)


def not_allowed_page(view: View) -> View:
    """`view`, with words in its 405."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **options: Any) -> HttpResponse:
        response: HttpResponse = view(request, *args, **options)
        if not isinstance(response, HttpResponseNotAllowed):
            return response
        page = render(request, "405.html", status=response.status_code)
        page.headers["Allow"] = response.headers["Allow"]
        return page

    return wrapped
