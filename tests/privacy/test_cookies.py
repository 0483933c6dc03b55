"""Cookies: registered ones only, for as long as the policy says."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from pytest_django import Settings

from privacy.cookies import cookie_register
from privacy.middleware import AsyncAnswer, unregistered_cookies_removed
from privacy.policy.compose import policy_compose
from tests.privacy.policy_samples import OPERATOR, sample_registry

SECRET_VALUE = "alice@example.org"


def answer(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("hello")
    response.set_cookie("session", "s")
    response.set_cookie("tracker", SECRET_VALUE)
    return response


async def answer_async(request: HttpRequest) -> HttpResponse:
    return answer(request)


@pytest.mark.claim("S-16")
def test_cookie_that_is_not_registered_is_removed(rf: RequestFactory) -> None:
    response = unregistered_cookies_removed(answer)(rf.get("/"))
    assert isinstance(response, HttpResponse)
    assert list(response.cookies) == ["session"]


def test_cookie_is_removed_from_asynchronous_answers_too(rf: RequestFactory) -> None:
    handler = cast("AsyncAnswer", unregistered_cookies_removed(answer_async))

    async def ask() -> list[str]:
        return list((await handler(rf.get("/"))).cookies)

    assert asyncio.run(ask()) == ["session"]


def test_removed_cookie_is_reported_without_what_it_said(
    rf: RequestFactory, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        unregistered_cookies_removed(answer)(rf.get("/"))
    [record] = caplog.records
    assert record.getMessage() == "removed a cookie that is not in the register: tracker"
    assert SECRET_VALUE not in caplog.text


def test_register_is_first_to_see_what_other_middleware_sets(settings: Settings) -> None:
    assert settings.MIDDLEWARE[0] == "privacy.middleware.unregistered_cookies_removed"


def test_names_of_cookies_come_from_the_settings(settings: Settings) -> None:
    settings.SESSION_COOKIE_NAME = "__Host-session"
    settings.CSRF_COOKIE_NAME = "__Host-csrf"
    assert [cookie.name for cookie in cookie_register()] == ["__Host-session", "__Host-csrf"]


@pytest.mark.claim("S-16", "S-68")
def test_policy_lists_the_registered_cookies() -> None:
    policy = policy_compose(
        registry=sample_registry(), operator=OPERATOR, cookies=cookie_register()
    )
    assert [text for claim, text in policy.sentences() if claim == "S-68"] == [
        "session | Keeps you signed in | 14 days; until you close your browser if you sign in"
        " with your password and do not tick “Stay signed in”",
        "csrf | Protects forms from being sent in your name by other sites"
        " | Until you close your browser",
    ]
