"""Ports for servers of the tests."""

from __future__ import annotations

import secrets
import socket

HOST = "127.0.0.1"
# Below those that the system gives to clients, lest one of these takes it in between.
PORT_MIN, PORT_MAX = 10_000, 30_000


def free_port() -> int:
    """A port that nobody uses just now, for UDP or TCP; none that a client may be given."""
    while True:
        port = PORT_MIN + secrets.randbelow(PORT_MAX - PORT_MIN)
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((HOST, port))
        except OSError:
            continue
        return port
