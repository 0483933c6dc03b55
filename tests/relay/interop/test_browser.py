"""Two pages of Chromium call each other through the relay alone: data, sound and pictures."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, Page

from tests.browser import browser_running
from tests.certificates import Files
from tests.relay.interop.peers import candidate_types
from tests.relay.interop.servers import HOST, Server

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).with_name("call.html")
PLACE = "https://call.test/"  # pages that are not from a secure place have no camera
PATIENCE_MILLISECONDS = 60_000
MESSAGES = [secrets.token_hex(size) for size in (1, 80, 600, 8000)] * 5
FRAMES_MIN = 5


@pytest.mark.parametrize(
    ("url", "over"),
    [
        ("turn:{host}:{port}?transport=udp", "udp"),
        ("turn:{host}:{port}?transport=tcp", "tcp"),
        ("turns:{host}:{port}?transport=tcp", "tls"),
    ],
    ids=["udp", "tcp", "tls"],
)
def test_two_pages_call_each_other_over_the_relay_alone(
    start: Callable[[str], Server], certificate: Files, url: str, over: str
) -> None:
    relay = start("mindmore")
    with browser_running(*arguments(certificate)) as browser:
        ends = [end_open(browser, relay, url.format(host=HOST, port=relay.port)) for _ in "12"]
        caller, callee = ends
        offered = caller.evaluate("offer()")
        assert candidate_types(offered["sdp"]) == {"relay"}, caller.evaluate("errors")
        answered = callee.evaluate("offered => answer(offered)", offered)
        assert candidate_types(answered["sdp"]) == {"relay"}, callee.evaluate("errors")
        caller.evaluate("answered => accept(answered)", answered)
        caller.wait_for_function("channel.readyState === 'open'")
        caller.evaluate("messages => messages.forEach(each => channel.send(each))", MESSAGES)
        caller.wait_for_function("count => returned.length === count", arg=len(MESSAGES))
        assert caller.evaluate("returned") == MESSAGES
        for end in ends:
            end.wait_for_function(
                "async least => { const {audio, video} = await seen();"
                " return audio > 0 && video >= least }",
                arg=FRAMES_MIN,
            )
            seen = end.evaluate("seen()")
            assert (seen["local"], seen["remote"], seen["over"]) == ("relay", "relay", over)


def test_browser_does_not_speak_to_a_relay_whose_certificate_it_does_not_trust(
    start: Callable[[str], Server],
) -> None:
    relay = start("mindmore")
    with browser_running(*arguments(None)) as browser:
        end = end_open(browser, relay, f"turns:{HOST}:{relay.port}?transport=tcp")
        assert candidate_types(end.evaluate("offer()")["sdp"]) == set()
        assert "701 Failed to establish connection" in end.evaluate("errors")


def arguments(certificate: Files | None) -> list[str]:
    """For Chromium: a camera and a microphone, this machine's own addresses, who is trusted."""
    switches = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--allow-loopback-in-peer-connection",
    ]
    if certificate is None:
        return switches
    public_key = x509.load_pem_x509_certificate(certificate[0].read_bytes()).public_key()
    encoded = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    trusted = base64.b64encode(hashlib.sha256(encoded).digest()).decode()
    return [*switches, f"--ignore-certificate-errors-spki-list={trusted}"]


def end_open(browser: Browser, relay: Server, url: str) -> Page:
    """A page with a camera, which knows the relay at one address."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    page = context.new_page()
    page.route("**/*", lambda route: route.fulfill(path=PAGE))
    page.goto(PLACE)
    username, credential = relay.credential()
    server = {"urls": [url], "username": username, "credential": credential}
    page.evaluate("servers => start(servers)", [server])
    return page
