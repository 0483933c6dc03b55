"""Payload is nowhere: a marker is relayed in every way there is, then looked for everywhere."""

from __future__ import annotations

import secrets
import socket
import time

import psutil
import pytest

from tests.e2e.service import RELAY_ADDRESS, inside, mint
from tests.marker_search import find_in_files
from tests.stack import Stack
from tests.turn_client import TurnClient

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

CHANNEL = 0x4000
TIMES = 2500  # in each of two forms, each way: 10 000 packets
AT_ONCE = 20  # so few that no buffer overflows
SHIPPED_SECONDS_MAX = 60


@pytest.mark.claim("S-15")
def test_relayed_content_is_in_no_table_file_or_log(stack: Stack) -> None:
    marker, planted = secrets.token_bytes(32), secrets.token_bytes(32)
    project = stack.demo["project"]
    before = inside(stack, "report", project)["rows"]["UsageRecord"]
    relay_marker(stack, marker)
    wait_until_shipped(stack, more_than=before)
    with (stack.home / "journal" / "planted").open("wb") as file:
        file.write(b"before" + planted + b"after")
    try:
        found = find_in_files([stack.home, (stack.home / "postgresql").resolve()], [planted])
        assert any(place.endswith("planted") for place in found)
    finally:
        (stack.home / "journal" / "planted").unlink()
    assert list(find_in_files([stack.home, (stack.home / "postgresql").resolve()], [marker])) == []
    assert inside(stack, "report", project, marker.hex())["found"] == []
    assert marker.hex() not in stack.output
    assert repr(marker) not in stack.output


@pytest.mark.claim("S-15")
def test_relay_leaves_no_core_dump(stack: Stack) -> None:
    relay = stack.child("runrelay")
    assert relay.rlimit(psutil.RLIMIT_CORE) == (0, 0)


def relay_marker(stack: Stack, marker: bytes) -> None:
    """Send it to a peer and back, as Send and Data indications and as ChannelData."""
    answer = mint(stack, stack.demo["api_key"])
    server = stack.demo["turn_host"], stack.demo["turn_port"]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        TurnClient(server, answer["username"], answer["credential"]) as client,
    ):
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        relayed = client.allocate()
        assert relayed[0] == RELAY_ADDRESS
        client.permit(peer.getsockname())
        for _ in range(TIMES // AT_ONCE):
            for _ in range(AT_ONCE):
                client.send(peer.getsockname(), marker)
            return_marker(client, peer, relayed, marker)
        client.bind(CHANNEL, peer.getsockname())
        for _ in range(TIMES // AT_ONCE):
            for _ in range(AT_ONCE):
                client.send_channel(CHANNEL, marker)
            return_marker(client, peer, relayed, marker)
        client.refresh(0)


def return_marker(
    client: TurnClient, peer: socket.socket, relayed: tuple[str, int], marker: bytes
) -> None:
    """Take a batch at the peer, send it back, and take it at the client."""
    for _ in range(AT_ONCE):
        assert peer.recvfrom(2000) == (marker, relayed)
        peer.sendto(marker, relayed)
    for _ in range(AT_ONCE):
        assert client.receive()[1] == marker


def wait_until_shipped(stack: Stack, *, more_than: int) -> None:
    deadline = time.monotonic() + SHIPPED_SECONDS_MAX
    while inside(stack, "report", stack.demo["project"])["rows"]["UsageRecord"] <= more_than:
        assert time.monotonic() < deadline
        time.sleep(1)
