"""No secret, password or key in a log line or in argv, and no address or username in a log (11)."""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

from tests.relay.attacks.conftest import StartRelay
from tests.relay.attacks.flood_core import forged, junk
from tests.relay.attacks.observe import log_lines, settle, udp_socket
from tests.relay.interop.servers import PROJECT
from tests.turn_client import TurnClient, TurnError

TOKEN_KEY = b64encode(b"the key of a third party's token").decode()
LABEL = "label-that-nobody-may-read-in-a-log"


def test_no_secret_in_argv_and_nothing_personal_in_the_log(relay_start: StartRelay) -> None:
    relay = relay_start(
        FAILURES_PER_MINUTE=2,
        MEDIA_ONLY="on",
        PROJECT_ALLOCATIONS_MAX=1,
        OAUTH_KEYS=f"north:{PROJECT}:{TOKEN_KEY}",
    )
    username, password = relay.credential(LABEL)
    with TurnClient(relay.address, username, password) as client, udp_socket() as peer:
        client.allocate()
        client.bind(0x4000, peer.getsockname())
        client.send_channel(0x4000, b"\xc3 marker of the payload")
        for wrong in ("guess-of-a-password", password):  # refused with 401, then with 486
            for _ in range(4):
                other = TurnClient(relay.address, username, wrong, timeout_seconds=0.1)
                with other, suppress(TurnError):
                    other.allocate()
        for number in range(100):
            peer.sendto(junk(number), relay.address)
            peer.sendto(forged(number), relay.address)
        settle(relay)
        argv = Path(f"/proc/{relay.process.pid}/cmdline").read_bytes()
    relay.stop()
    output = (relay.home / "output").read_text()
    secrets = [
        word
        for name in ("MINDMORE_TURN_SECRETS", "MINDMORE_TURN_NONCE_KEYS", "MINDMORE_SECRET_KEY")
        for word in os.environ[name].split(",")
    ]
    assert all(len(secret) > 8 for secret in secrets)
    for secret in (*secrets, TOKEN_KEY, password, client.key.hex(), client.nonce.decode()):
        assert secret.encode() not in argv
        assert secret not in output
    for personal in (LABEL, username, "127.0.0.1", "guess-of", "marker of"):
        assert personal not in output
    events = [line["event"] for line in log_lines(relay)]
    assert events[:2].count("relay_started") == 1  # a small host says first that files are few
    assert "relay_silenced" in events
    assert events[-1] == "relay_stopped"
