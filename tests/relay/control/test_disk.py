"""What Valkey holds of people for a moment is never on its disk."""

from __future__ import annotations

import signal
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.utils import timezone

from mindmore.embedded.valkey import valkey_prepare
from relay.control.keys import ANNOUNCED, STREAM
from relay.services.control import username_announce
from tests.marker_search import find_in_files
from tests.relay.control.fleet import Fleet, client_of

pytestmark = [pytest.mark.xdist_group("fleet")]

CLIENT = "127.0.77.123"
ANNOUNCED_MARKER, ASKED_MARKER = "planted-username", "planted-question"


def printed(command: str, *arguments: str) -> str:
    output = StringIO()
    call_command(command, *arguments, stdout=output, stderr=StringIO())
    return output.getvalue()


def test_neither_addresses_nor_usernames_nor_labels_come_to_valkeys_disk(fleet: Fleet) -> None:
    fleet.start()
    fleet.started()
    credential = fleet.mint(label=ANNOUNCED_MARKER)
    now = timezone.now()
    username_announce(username=credential.username, expires_at=now + timedelta(hours=1), now=now)
    with client_of(fleet.relays["node-a"], credential, CLIENT) as client:
        client.allocate()
        assert CLIENT in printed("relay_sessions", "--addresses")
        printed("relay_sessions", "--label", ASKED_MARKER)
    held = fleet.valkey.client()
    assert held.zscore(ANNOUNCED, credential.username) is not None
    assert ASKED_MARKER in str(held.xrange(STREAM))
    child = fleet.valkey.child
    assert child
    child.send_signal(signal.SIGTERM)  # a regular end, at which it would write what it has
    child.wait()
    fleet.valkey.child = None
    markers = [CLIENT, ANNOUNCED_MARKER, ASKED_MARKER]
    assert list(find_in_files([fleet.valkey.home], markers)) == []


def test_what_an_earlier_release_wrote_to_valkeys_disk_goes_at_the_next_start(
    tmp_path: Path,
) -> None:
    written = tmp_path / "valkey" / "appendonlydir"
    written.mkdir(parents=True)
    (written / "appendonly.aof.1.incr.aof").write_bytes(ANNOUNCED_MARKER.encode())
    valkey_prepare(tmp_path)
    assert list(find_in_files([tmp_path], [ANNOUNCED_MARKER])) == []
