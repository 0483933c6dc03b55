"""Millions of datagrams of strangers, DTLS too, cost no memory and open nothing (Security 6)."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.relay.attacks.conftest import StartRelay
from tests.relay.attacks.flood_core import KINDS
from tests.relay.attacks.observe import descriptors, log_lines, rss_bytes, settle, udp_socket
from tests.relay.interop.servers import ROOT

GROWN_BYTES_MAX = 10_000_000
SOURCES = 512
PER_SOURCE = 120


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "count"),
    [("spoofed", 400_000), ("forged", 100_000), ("junk", 500_000), ("hellos", 1_000_000)],
)
def test_a_million_datagrams_of_strangers_leave_nothing_behind(kind: str, count: int) -> None:
    program = [sys.executable, "-m", "tests.as_configured", "tests.relay.attacks.flood_core"]
    command = [*program, kind, str(count)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found.pop("grown_bytes") < GROWN_BYTES_MAX
    assert (found.pop("answered") > 0.9 * count) is (kind != "junk")
    assert set(found.values()) == {0}


@pytest.mark.timeout(300)
def test_running_relay_stays_as_it_is_under_a_flood(relay_start: StartRelay) -> None:
    relay = relay_start()
    begun = time.monotonic()
    with relay.client() as client:
        client.allocate()
        before, open_before = rss_bytes(relay), descriptors(relay)
        sources = [udp_socket(f"127.{index % 8}.{index}.7") for index in range(1, SOURCES // 2)]
        for number in range(PER_SOURCE):
            for source in sources:
                make = list(KINDS.values())[number % 3]
                source.sendto(make(number), relay.address)
            time.sleep(0.005)
        settle(relay)
        assert rss_bytes(relay) - before < GROWN_BYTES_MAX
        assert descriptors(relay) == open_before
        assert client.refresh(600) == 600
    answered = 0
    for source in sources:
        source.setblocking(False)
        try:
            while source.recv(2048):
                answered += 1
        except BlockingIOError:
            source.close()
    assert answered > 0
    silences = [line for line in log_lines(relay) if line["event"] == "relay_silenced"]
    assert {line["limit"] for line in silences} == {"unauthenticated answers"}
    assert len(silences) <= 1 + (time.monotonic() - begun) // 60  # one in a minute
