"""A reserved port on a real relay: nobody else can have it, and it comes back."""

from __future__ import annotations

import socket

import pytest

from tests.relay.endurance.conftest import StartWatched, until
from tests.turn_client import Address, Attribute, Method, allocate_attributes

pytestmark = pytest.mark.xdist_group("endurance")


def is_free(address: Address) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        try:
            other.bind(address)
        except OSError:
            return False
        return True


def test_reserved_port_is_held_and_comes_back(relay_start: StartWatched) -> None:
    relay = relay_start(lifetime_seconds=3)
    before = relay.open_files()
    with relay.server.client() as client:
        reserve = (Attribute.EVEN_PORT, b"\x80")
        answer = client.request(Method.ALLOCATE, [*allocate_attributes(), reserve])
        host, even_port = answer.address(Attribute.XOR_RELAYED_ADDRESS)
        reserved = host, even_port + 1
        assert not is_free(reserved)
        client.refresh(0)
        assert not is_free(reserved)
    until(lambda: is_free(reserved), relay.facts)
    relay.until_empty(before)
