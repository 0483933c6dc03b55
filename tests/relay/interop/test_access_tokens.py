"""Access tokens (RFC 7635) that coturn's programs make and read, and calls that run on them."""

from __future__ import annotations

import json
import subprocess
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.core.access_tokens import AccessToken, ThirdParty, token_seal
from relay.metering.records import SessionRecord, UsageRecord
from relay.sealing import gcm_open, gcm_seal
from tests.relay.interop.journal import records_read
from tests.relay.interop.servers import PROJECT, Server, program, server_running
from tests.relay.interop.test_coturn_programs import lost_check, uclient

pytestmark = pytest.mark.interop

SERVER_NAME = "turn.example.org"
MAC_KEY = b"printable, 20 bytes."
NONCE = b"nonce1234567"
# What `turnutils_uclient -J` has built in: it makes tokens for whatever server it is told of.
COTURN_KEYS = {
    "north": b"01234567890123456789012345678901",
    "union": b"1234567890123456",
    "oldempire": b"12345678901234567890123456789012",
}
ALGORITHMS = [(b"k" * 32, "A256GCM"), (b"k" * 16, "A128GCM")]


@pytest.fixture
def oauth_relay(tmp_path: Path) -> Iterator[Server]:
    """The relay with the keys of coturn's client, all of one project."""
    keys = [f"{kid}:{PROJECT}:{b64encode(key).decode()}" for kid, key in COTURN_KEYS.items()]
    changes = {
        "MINDMORE_TURN_OAUTH_KEYS": ",".join(keys),
        "MINDMORE_TURN_OAUTH_SERVER_NAME": SERVER_NAME,
    }
    with server_running("mindmore", tmp_path, changes) as running:
        yield running


def unix_now() -> int:
    return int(time.clock_gettime(time.CLOCK_REALTIME))


def turnutils_oauth(key: bytes, algorithm: str, *options: str, name: str = SERVER_NAME) -> str:
    """What it prints; it fails where it cannot do what it is asked."""
    now = unix_now()
    options = (
        *("-v", "-i", name, "-j", "north", "-k", b64encode(key).decode(), "-n", algorithm),
        *("-l", str(now - 10), "-m", "36000", *options),
    )
    done = subprocess.run(
        [program("turnutils_oauth"), *options],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(("key", "algorithm"), ALGORITHMS)
def test_coturns_token_is_ours_to_the_byte(key: bytes, algorithm: str) -> None:
    now = unix_now()
    printed = turnutils_oauth(
        key,
        algorithm,
        *("-e", "-p", b64encode(MAC_KEY).decode(), "-o", b64encode(NONCE).decode()),
        *("-q", str(now << 16), "-r", "1234"),
    )
    token = AccessToken(MAC_KEY, now, 1234)
    value = b64decode(json.loads(printed)["access_token"])
    assert value == token_seal(gcm_seal, key, SERVER_NAME, token, NONCE)
    assert ThirdParty(SERVER_NAME, (), gcm_open).open(key, value) == token
    assert ThirdParty("another.example.org", (), gcm_open).open(key, value) is None


@pytest.mark.parametrize(("key", "algorithm"), ALGORITHMS)
def test_coturn_reads_our_token(key: bytes, algorithm: str) -> None:
    now = unix_now()
    value = token_seal(gcm_seal, key, SERVER_NAME, AccessToken(MAC_KEY, now, 1234), NONCE)
    token = "-d", "-t", b64encode(value).decode()
    printed = turnutils_oauth(key, algorithm, *token)
    assert f"mac key: {MAC_KEY.decode()}\n" in printed
    assert f"unixtime: {now} " in printed
    assert "lifetime: 1234\n" in printed
    with pytest.raises(subprocess.CalledProcessError):
        turnutils_oauth(key, algorithm, *token, name="another.example.org")


@pytest.mark.parametrize("flags", ["-y", "-y -s -c", "-y -G -D", "-t -y -c", "-T"])
def test_uclient_with_tokens_loses_nothing(oauth_relay: Server, flags: str) -> None:
    lost_check(uclient(oauth_relay, *oauth_relay.address, "-J", *flags.split()))
    oauth_relay.stop()
    records = records_read(oauth_relay.home)
    sessions = [record for record in records if isinstance(record, SessionRecord)]
    assert len(sessions) >= 2
    assert {session.project for session in sessions} == {PROJECT}
    usage = [record for record in records if isinstance(record, UsageRecord)]
    assert sum(record.peer_sent for record in usage) >= 2 * 50 * 160


def test_uclient_that_has_tokens_goes_back_to_its_password_where_none_are_taken(
    relay: Server,
) -> None:
    lost_check(uclient(relay, *relay.address, "-J", "-y", "-c"))
