"""The kernel chooses a process by the client's network, whatever it speaks and wherever to."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from relay.transports.listening import ListenError, endpoints_bind, endpoints_close
from tests.ports import free_port
from tests.relay.interop.servers import HOST
from tests.relay.processes.steering_probe import NETWORKS, PROCESSES
from tests.skips import program_missing, skip

ROOT = Path(__file__).resolve().parents[3]
# Two addresses of each network, by UDP and by TCP, to two addresses of the relay.
ARRIVALS = 8


@pytest.fixture(scope="module")
def arrivals() -> dict[str, dict[str, list[tuple[str, int]]]]:
    """By family and network, what came to which process."""
    for program, package in (("unshare", "util-linux"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            program_missing(program, package=package)
    prefix = ["unshare", "--net"]
    if os.geteuid() != 0:
        prefix = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*prefix, "true"], check=False).returncode:
        skip("this machine lets this account make no network namespace")
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.relay.processes.steering_probe"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[tuple[str, int]]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("family", ["4", "6"])
def test_network_comes_to_one_process_over_udp_and_tcp_wherever_it_sends(
    arrivals: dict[str, dict[str, list[tuple[str, int]]]], family: str
) -> None:
    networks = arrivals[family]
    assert len(networks) == NETWORKS
    for came in networks.values():
        assert Counter(transport for transport, _ in came) == {
            "udp": ARRIVALS // 2,
            "tcp": ARRIVALS // 2,
        }
        assert len({process for _, process in came}) == 1


@pytest.mark.parametrize("family", ["4", "6"])
def test_networks_spread_evenly(
    arrivals: dict[str, dict[str, list[tuple[str, int]]]], family: str
) -> None:
    spread = Counter(came[0][1] for came in arrivals[family].values())
    expected = NETWORKS / PROCESSES
    deviation = (expected * (1 - 1 / PROCESSES)) ** 0.5
    assert sorted(spread) == list(range(PROCESSES))
    assert all(abs(count - expected) < 6 * deviation for count in spread.values())


def test_addresses_of_another_relay_are_not_shared_with_it() -> None:
    address = HOST, free_port()
    first = endpoints_bind([address], 2)
    try:
        with pytest.raises(ListenError, match="in use"):
            endpoints_bind([address], 2)
    finally:
        endpoints_close(first)


def test_nothing_stays_bound_where_one_address_cannot_be() -> None:
    free, taken = (HOST, free_port()), (HOST, free_port())
    with socket.create_server(taken), pytest.raises(ListenError, match=str(taken[1])):
        endpoints_bind([free, taken], 2)
    endpoints_close(endpoints_bind([free, taken], 2))
