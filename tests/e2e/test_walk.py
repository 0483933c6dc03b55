"""The whole way of one call, with a real browser and real clients, through the running service."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from billing.money import money_format
from relay.templatetags.units import in_bytes
from tests.browser import Visit, visit
from tests.e2e.service import RELAY_ADDRESS, inside, mint
from tests.people import PASSWORD
from tests.relay.interop.peers import libwebrtc_exchange
from tests.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.stack, pytest.mark.xdist_group("stack")]

MESSAGES = [bytes([number]) * 1000 for number in range(100)]
BOOKED_SECONDS_MAX = 90


def test_one_call_from_sign_up_to_the_invoice_and_its_purge(stack: Stack) -> None:
    with visit(stack.web_url) as dana:
        api_key, project_path = sign_up_to_key(dana)
        answer = mint(stack, api_key)
        returned = relay(answer)
        assert sorted(returned) == sorted(MESSAGES)

        project = project_path.strip("/").rpartition("/")[2]
        booked = wait_until_booked(stack, project)
        sent = sum(session["client_sent_bytes"] for session in booked["sessions"])
        # Each end has allocated over UDP and over TCP, and used one of the two.
        assert len(booked["sessions"]) == 4
        assert sent > 2 * sum(map(len, MESSAGES))
        assert booked["hours_client_sent_bytes"] == sent
        assert [line["metered_bytes"] for line in booked["lines"]] == [sent]

        dana.open(f"{project_path}sessions/")
        assert dana.page.get_by_text(RELAY_ADDRESS).first.is_visible()
        dana.open("/dashboard/")
        cost = booked["invoices"][0]["amount_cents"]
        assert tile(dana, "Today").startswith(in_bytes(sent))
        assert tile(dana, "This month").startswith(in_bytes(sent))
        assert tile(dana, "Cost so far").startswith(money_format(cost))
        dana.open("/billing/")
        dana.page.locator("main a").first.click()
        assert dana.page.get_by_text(f"{sent:,}").first.is_visible()

    assert inside(stack, "report", project, RELAY_ADDRESS)["found"] != []
    purged = inside(stack, "purge", project, RELAY_ADDRESS, "127.0.0.1")
    assert purged["rows"] == dict.fromkeys(booked["rows"], 0)
    assert purged["found"] == []
    assert purged["invoices"] == booked["invoices"]
    assert purged["lines"] == booked["lines"]


def sign_up_to_key(dana: Visit) -> tuple[str, str]:
    """Sign up, confirm, make a project and a key; the key's text and the project's path."""
    page = dana.page
    dana.open("/accounts/signup/")
    page.get_by_label("Your name").fill("Dana")
    page.get_by_label("E-mail address").fill("dana@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("I am 16 or older").check()
    page.get_by_role("button", name="Sign up").click()
    dana.open("/outbox/")
    page.get_by_role("link", name="Confirm your e-mail address").click()
    page.locator(".mail a").first.click()
    page.get_by_role("button", name="Yes, confirm").click()
    dana.open("/projects/")
    page.get_by_label("Name of the new project").fill("Production")
    page.get_by_role("button", name="Make project").click()
    project_path = page.url.removeprefix(dana.site)
    page.get_by_label("Name of the new key").fill("server")
    page.get_by_role("button", name="Make key").click()
    return page.get_by_label("API key", exact=True).input_value(), project_path


def relay(answer: dict[str, Any]) -> list[bytes]:
    """Send the messages through two peers and back; the browser's event loop has this thread."""
    with ThreadPoolExecutor(1) as other_thread:
        return other_thread.submit(asyncio.run, libwebrtc_exchange(answer, MESSAGES)).result()


def tile(dana: Visit, title: str) -> str:
    """What the dashboard says under a title."""
    term = dana.page.get_by_role("term").filter(has_text=title)
    return term.locator("xpath=following-sibling::dd").inner_text()


def wait_until_booked(stack: Stack, project: str) -> dict[str, Any]:
    """Wait for the service's own jobs: all sessions ended, shipped, rolled up and rated."""
    deadline = time.monotonic() + BOOKED_SECONDS_MAX
    while True:
        booked = inside(stack, "report", project)
        sent = sum(session["client_sent_bytes"] for session in booked["sessions"])
        rated = sum(line["metered_bytes"] for line in booked["lines"])
        if sent and len(booked["sessions"]) == 4 and sent == rated:
            return booked
        assert time.monotonic() < deadline, booked
        time.sleep(1)
