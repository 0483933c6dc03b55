"""Messages longer than a packet, and DONT-FRAGMENT, where packets have at most 1280 bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.relay.transports.fragments_probe import LONG, SHORT, WAYS
from tests.skips import program_missing, skip

ROOT = Path(__file__).resolve().parents[3]

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture(scope="module")
def lengths() -> dict[str, tuple[list[int], list[int]]]:
    """What arrived, by the way it took."""
    for program, package in (("unshare", "util-linux"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            program_missing(program, package=package)
    prefix = ["unshare", "--net"]
    if os.geteuid() != 0:
        prefix = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*prefix, "true"], check=False).returncode:
        skip("this machine lets this account make no network namespace")
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.relay.transports.fragments_probe"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[list[int], list[int]]] = json.loads(done.stdout)
    return found


@every_way
def test_fragments_are_put_together_and_long_data_is_sent_in_fragments(
    lengths: dict[str, tuple[list[int], list[int]]], way: tuple[str, int, int]
) -> None:
    assert lengths[str(way)][0] == [LONG, LONG]


@every_way
def test_dont_fragment_holds_from_ipv4_to_ipv4_and_from_streams_and_else_not(
    lengths: dict[str, tuple[list[int], list[int]]], way: tuple[str, int, int]
) -> None:
    holds = way[0] == "tcp" or way[1:] == (4, 4)
    assert lengths[str(way)][1] == ([SHORT] if holds else [LONG, SHORT])
