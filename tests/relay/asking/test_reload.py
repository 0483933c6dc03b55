"""Reload by SIGHUP, on a real relay: whole or not at all, and no call notices."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TextIO

import pytest

from relay.config import RelayConfig
from relay.core.replacement import FIXED
from relay.reload import LIVE, NEEDS_RESTART, ConfigurationError, relay_address_try
from tests.certificates import certificate_write
from tests.ports import free_port
from tests.relay.asking.rig import (
    CHANNEL,
    ENVIRONMENT,
    SECRETS,
    Installation,
    env_file,
    installation_running,
    ping,
    refusal_code,
    udp_peer,
)
from tests.relay.interop.servers import HOST, ROOT, Server, mindmore
from tests.relay.transports.rig import until
from tests.stream_client import StreamClient
from tests.turn_client import TurnClient, TurnError

RELOADS = 100
EFFECTIVE_SECONDS_MAX = 2.0


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Installation]:
    with installation_running(tmp_path) as running:
        yield running


def test_rotated_secret_is_used_and_the_old_ones_call_goes_on(relay: Installation) -> None:
    with relay.server.client() as client, udp_peer() as peer:
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        assert refusal_code(relay, "second") == 401
        relay.configure(secrets=f"{SECRETS['second']},{SECRETS['first']}")
        assert relay.hang_up()["changed"] == ["secrets"]
        assert refusal_code(relay, "second") == refusal_code(relay, "first") == 0
        relay.configure(secrets=SECRETS["second"])
        assert relay.hang_up()["changed"] == ["secrets"]
        assert refusal_code(relay, "first") == 401
        assert refusal_code(relay, "second") == 0
        assert client.refresh(600) == 600
        client.bind(CHANNEL, peer.getsockname())
        ping(client, peer)


def test_changed_policy_parts_live_peers_and_leaves_the_others(relay: Installation) -> None:
    with relay.server.client() as client, udp_peer() as peer:
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        ping(client, peer)
        relay.configure(denied_peers=f"{HOST}/32")
        assert relay.hang_up()["changed"] == ["peer rules"]
        client.send_channel(CHANNEL, b"no more")
        peer.settimeout(0.5)
        with pytest.raises(TimeoutError):
            peer.recv(100)
        with pytest.raises(TurnError) as refused:
            client.bind(CHANNEL, peer.getsockname())
        assert refused.value.code == 403
        relay.configure()
        relay.hang_up()
        client.bind(CHANNEL, peer.getsockname())
        ping(client, peer)


def test_hangup_while_the_settings_are_read_is_heard_once_the_relay_runs(tmp_path: Path) -> None:
    file = tmp_path / "env"
    os.mkfifo(file)  # it is read for as long as this test wants
    port = free_port()
    command, environment, _ = mindmore(port, tmp_path, None)
    environment = {**os.environ, **environment, **ENVIRONMENT}
    with (tmp_path / "output").open("w+b") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    relay = Installation(Server("mindmore", port, SECRETS["first"], tmp_path, process))
    try:
        with pipe_of(relay) as pipe:
            process.send_signal(signal.SIGHUP)
            pipe.write(env_file({}))
        relay.said("relay_started")
        with pipe_of(relay) as pipe:
            pipe.write(env_file({"secrets": SECRETS["second"]}))
        assert relay.said("configuration_reloaded")["changed"] == ["secrets"]
    finally:
        process.kill()
        process.wait()
    assert [line["event"] for line in relay.log()].count("configuration_reloaded") == 1


def pipe_of(relay: Installation) -> TextIO:
    """Our end of its file, once the relay reads it."""
    opened: list[int] = []

    def is_read() -> bool:
        assert relay.server.process.poll() is None
        try:
            opened.append(os.open(relay.file, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    assert until(is_read)
    return os.fdopen(opened[0], "w")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"denied_peers": "10.0.0.0/8,everything"}, "MINDMORE_TURN_DENIED_PEERS"),
        ({"allowed_peers": "127.0.0.1/8"}, "MINDMORE_TURN_ALLOWED_PEERS"),
        ({"secrets": "short"}, "MINDMORE_TURN_SECRETS"),
        ({"relay_ports": "5-1"}, "MINDMORE_TURN_RELAY_PORTS"),
        ({"certificate": "/none"}, "MINDMORE_TURN_CERTIFICATE"),
        ({"on_expiry": "sometimes"}, "MINDMORE_TURN_ON_EXPIRY"),
        ({"node": "another"}, "MINDMORE_TURN_NODE"),
        ({"realm": "another", "node": "another"}, "MINDMORE_TURN_REALM"),
    ],
)
def test_bad_file_changes_nothing_and_says_why_in_one_line(
    tmp_path: Path, settings: dict[str, str], reason: str
) -> None:
    with (
        installation_running(tmp_path) as relay,
        relay.server.client() as client,
        udp_peer() as peer,
    ):
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        # A good change beside the bad one is not taken over either.
        relay.configure(**{"secrets": SECRETS["second"], **settings})
        line = relay.hang_up()
        assert line["event"] == "configuration_kept"
        assert reason in str(line["reason"])
        assert "\n" not in str(line["reason"])
        assert SECRETS["second"] not in json.dumps(line)
        assert refusal_code(relay, "first") == 0
        assert refusal_code(relay, "second") == 401
        ping(client, peer)


def test_file_that_is_no_list_of_settings_changes_nothing(relay: Installation) -> None:
    relay.file.write_text("this is a secret and no setting\n")
    line = relay.hang_up()
    assert line["event"] == "configuration_kept"
    assert "line 1 is not of the form NAME=value" in str(line["reason"])
    assert "secret" not in str(line["reason"])
    relay.file.write_bytes(b"\xff\xfe\x00")
    assert relay.hang_up()["event"] == "configuration_kept"
    assert refusal_code(relay) == 0


def test_hundred_reloads_lose_no_packet_of_a_call(relay: Installation) -> None:
    with relay.server.client() as client, udp_peer() as peer:
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        ended = threading.Event()
        pings = 0
        seconds: list[float] = []
        failed: list[BaseException] = []

        def call() -> None:
            nonlocal pings
            try:
                while not ended.is_set():
                    ping(client, peer)
                    pings += 1
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        try:
            for number in range(RELOADS):
                word = ("second", "third")[number % 2]
                relay.configure(
                    secrets=f"{SECRETS['first']},{SECRETS[word]}",
                    nonce_keys=f"{SECRETS[word]},{SECRETS['first']}",
                    denied_peers=f"203.0.113.{number}/32",
                    relay_ports=f"{40000 + number}-49000",
                    failures_per_minute=str(100 + number),
                )
                before, began = pings, time.monotonic()
                assert "secrets" in relay.hang_up()["changed"]  # type: ignore[operator]
                seconds.append(time.monotonic() - began)
                assert until(lambda: pings > before + 1 or bool(failed))  # noqa: B023 - called here
        finally:
            ended.set()
            thread.join()
        assert not failed
        assert pings > RELOADS
        assert sorted(seconds)[RELOADS * 99 // 100 - 1] <= EFFECTIVE_SECONDS_MAX
        assert client.refresh(600) == 600


def test_relayed_ports_of_a_reload_are_for_new_calls(relay: Installation) -> None:
    with relay.server.client() as client, udp_peer() as peer:
        before = client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        relay.configure(relay_ports="31000-31009")
        relay.hang_up()
        ping(client, peer)
        with relay.server.client() as other:
            host, port = other.allocate()
            assert host == before[0]
            assert 31000 <= port <= 31009
            other.refresh(0)
        client.refresh(0)


def test_certificate_of_another_place_is_used_and_its_call_goes_on(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = (certificate_write(tmp_path / name, f"{name}.test") for name in ("old", "new"))
    port = str(free_port())
    files = {"certificate": str(old[0]), "certificate_key": str(old[1]), "tls_port": port}
    with (
        installation_running(tmp_path / "home", None, **files) as relay,
        tls_client(relay) as client,
    ):
        client.allocate()
        assert tls_name(client) == b"old.test"
        relay.configure(certificate=str(new[0]), certificate_key=str(old[1]), tls_port=port)
        assert relay.hang_up()["event"] == "configuration_kept"
        relay.configure(certificate=str(new[0]), certificate_key=str(new[1]), tls_port=port)
        assert relay.hang_up()["changed"] == ["certificate"]
        with tls_client(relay) as other:
            assert tls_name(other) == b"new.test"
        assert client.refresh(600) == 600
        shutil.copy(old[0], new[0])
        shutil.copy(old[1], new[1])
        relay.hang_up()
        with tls_client(relay) as other:
            assert tls_name(other) == b"old.test"
        relay.configure()
        line = relay.hang_up()
        assert "TLS on or off" in str(line["reason"])
        assert client.refresh(600) == 600


def tls_client(relay: Installation) -> StreamClient:
    return StreamClient(relay.server.address, *relay.server.credential(), tls=True)


def tls_name(client: TurnClient) -> bytes:
    assert isinstance(client.socket, ssl.SSLSocket)
    der = client.socket.getpeercert(binary_form=True) or b""
    return next(name for name in (b"old.test", b"new.test") if name in der)


def test_every_setting_is_taken_over_or_needs_a_restart_by_name() -> None:
    no_variables = {"flush_interval_seconds", "process"}
    names = {field.name for field in fields(RelayConfig)} - no_variables
    assert names == LIVE | (NEEDS_RESTART.keys() - FIXED)


def test_relayed_address_of_another_host_is_no_configuration() -> None:
    relay_address_try(HOST)
    with pytest.raises(ConfigurationError, match="MINDMORE_TURN_RELAY_ADDRESS"):
        relay_address_try("192.0.2.1")
