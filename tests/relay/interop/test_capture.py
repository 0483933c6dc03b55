"""What is metered equals what a packet capture saw, to the byte, on every transport."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.relay.interop.captured import CALLS, SIZES, STREAM_BYTES, TIMES
from tests.relay.interop.servers import ROOT
from tests.skips import program_missing, skip

# One group: they share one capture.
pytestmark = pytest.mark.xdist_group("capture")

APART = ["unshare", "--user", "--map-root-user", "--net"]
PATIENCE_SECONDS = 120
Found = dict[str, dict[str, list[int]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The counters and the wire of every call, made in a network of their own."""
    for name, package in (("unshare", "util-linux"), ("ip", "iproute2")):
        if shutil.which(name) is None:
            program_missing(name, package=package)
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        skip("this machine lets nobody make a network namespace")
    directory = tmp_path_factory.mktemp("captured")
    done = subprocess.run(
        [*APART, sys.executable, "-m", "tests.relay.interop.captured", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer: Found = json.loads((directory / "found.json").read_text())
    return answer


@pytest.mark.parametrize("call", CALLS)
def test_counters_equal_the_wire_to_the_byte(found: Found, call: str) -> None:
    assert found[call]["counted"] == found[call]["wire"]
    data_bytes = 2 * sum(SIZES) * (2 if call == "mobility" else 1)
    if call.startswith("tcp-allocation"):
        data_bytes = TIMES * STREAM_BYTES
    assert found[call]["wire"][2:] == [data_bytes, data_bytes]
    assert min(found[call]["wire"][:2]) > data_bytes
