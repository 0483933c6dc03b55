"""Datagrams told apart by their first byte: RFC 8656 section 12, table 3."""

from __future__ import annotations

import socket

from tests.relay.transports.rig import HOSTS, PATIENCE_SECONDS, RunningRelay
from tests.turn_client import channeldata_encode

CHANNEL = 0x4000
NOBODYS = [*range(4, 20), *range(128, 256)]
CHANNELS_OF_RFC_5766 = range(80, 128)


def test_datagrams_that_begin_with_a_reserved_byte_are_dropped(relay: RunningRelay) -> None:
    with (
        relay.client("udp") as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind((HOSTS[4], 0))
        peer.settimeout(PATIENCE_SECONDS)
        client.allocate()
        client.bind(CHANNEL, peer.getsockname())
        for first in (*NOBODYS, *CHANNELS_OF_RFC_5766):
            client.transmit(bytes((first,)) + channeldata_encode(CHANNEL, b"reserved")[1:])
        client.send_channel(CHANNEL, b"ours")
        assert peer.recv(100) == b"ours"  # and nothing came before it
        assert relay.dropped("malformed") == len(NOBODYS)
        assert relay.dropped("no channel") == len(CHANNELS_OF_RFC_5766)  # none of them is bound
        assert relay.counters()[3] == len(b"ours")
