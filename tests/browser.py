"""A real Chromium for tests, which notices what a page should not do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.skips import program_missing

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Chromium's own conversations, which are none of the pages':
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SAYS_404 = "the server responded with a status of 404"


@dataclass
class Visit:
    """One person's browser window.

    Attributes:
        page: what they see.
        site: the service, "http://localhost:PORT".
        strangers: addresses of other hosts that a page asked for.
        complaints: errors and warnings of the console: breaches of the content security policy,
            uncaught errors, things that could not be loaded.
    """

    page: Page
    site: str
    strangers: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to a page of the site."""
        self.page.goto(self.site + path)

    def cookies(self) -> set[str]:
        """The names of the cookies that the browser holds."""
        return {cookie["name"] for cookie in self.page.context.cookies()}

    def add_passkey_device(self) -> None:
        """Give the machine a device for passkeys that asks nobody."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        session.send("WebAuthn.addVirtualAuthenticator", {"options": options})

    def note_request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme != "data" and f"{address.scheme}://{address.netloc}" != self.site:
            self.strangers.append(request.url)

    def note_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and SAYS_404 not in message.text:
            self.complaints.append(message.text)


@contextmanager
def browser_running(*arguments: str) -> Iterator[Browser]:
    """Start Chromium, headless, with arguments beside the usual ones; end it."""
    if not Path(CHROMIUM).exists():
        program_missing("Chromium", package="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*ARGUMENTS, *arguments]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(site: str, *, javascript: bool = True, width: int = 1280) -> Iterator[Visit]:
    """Open a browser that has never been here; at the end, nothing may have gone wrong in it.

    Ask the database before or after, not within: Playwright runs an event loop in this thread.

    Args:
        site: the service. Passkeys need a host name in it, so localhost and not 127.0.0.1.
        javascript: whether the visitor lets pages run scripts.
        width: of the window, in CSS pixels.
    """
    with browser_running() as browser:
        context = browser.new_context(
            java_script_enabled=javascript, viewport={"width": width, "height": 800}
        )
        context.set_default_timeout(10_000)
        visiting = Visit(context.new_page(), site)
        context.on("request", visiting.note_request)
        context.on("console", visiting.note_console)
        context.on("weberror", lambda error: visiting.complaints.append(str(error.error)))
        yield visiting
    assert visiting.strangers == []
    assert visiting.complaints == []
