"""A running relay against reflection, guessing, and those who ask all at once (5, 11, 12)."""

from __future__ import annotations

import select
import socket
import struct
import time

import pytest

from tests.relay.attacks.conftest import StartRelay
from tests.relay.attacks.observe import udp_socket
from tests.turn_client import (
    UDP_PROTOCOL,
    Attribute,
    Kind,
    Method,
    TurnClient,
    TurnError,
    message_decode,
    message_encode,
)

SO_TIMESTAMPNS = 35  # <asm-generic/socket.h>: with each datagram, when it came
REQUESTED = (Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)
GUESSER = "127.9.9.9"  # nobody else comes from there
UNLIMITED = {"UNAUTHENTICATED_ANSWERS_PER_SECOND": 0}


def answers_collect(endpoint: socket.socket, seconds: float) -> list[float]:
    """When answers came, in unix seconds: as the kernel says, however late they are read."""
    came = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([endpoint], [], [], left)[0]:
            _, ((_, _, stamp), *_), _, _ = endpoint.recvmsg(2048, 64)
            whole, nanoseconds = struct.unpack("qq", stamp)
            came.append(whole + nanoseconds / 1e9)
    return came


@pytest.mark.parametrize(
    ("method", "attributes"), [(Method.BINDING, []), (Method.ALLOCATE, [REQUESTED])]
)
def test_reflected_answers_are_at_most_ten_a_second(
    relay_start: StartRelay, method: Method, attributes: list[tuple[int, bytes]]
) -> None:
    relay = relay_start()
    request = message_encode(method, Kind.REQUEST, attributes)
    time.sleep(1.1)  # the answers of its start have been forgotten
    came = []
    begun = time.monotonic()
    with udp_socket() as victim:
        victim.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        while time.monotonic() - begun < 3:
            for _ in range(20):
                victim.sendto(request, relay.address)
            came += answers_collect(victim, 0.05)
    assert 20 <= len(came) <= 10 * (time.monotonic() - begun + 1)
    for begin in came:  # the relay reads its clock a little before it sends
        assert sum(begin <= at < begin + 0.8 for at in came) <= 10


def code_of(client: TurnClient) -> int:
    """How the relay answers one signed Allocate; 0 for silence."""
    try:
        answer = client.exchange(Method.ALLOCATE, client.signed([REQUESTED]), key=client.key)
    except TurnError as silence:
        return silence.code
    return answer.error_code


def test_guesses_meet_silence_and_the_right_password_does_not(relay_start: StartRelay) -> None:
    relay = relay_start(FAILURES_PER_MINUTE=5, **UNLIMITED)
    username, password = relay.credential()
    codes = []
    for guess in range(8):
        with TurnClient(
            relay.address, username, f"guess {guess}", local=(GUESSER, 0), timeout_seconds=10
        ) as client:
            client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
            if guess >= 5:
                client.socket.settimeout(0.2)  # for silence
            # One request a guess: `allocate` asks again where the nonce has changed meanwhile.
            codes.append(code_of(client))
    assert codes == [401] * 5 + [0] * 3
    with TurnClient(relay.address, username, password, local=(GUESSER, 0)) as client:
        client.allocate()


def test_quota_is_exact_under_a_hundred_parallel_allocates(relay_start: StartRelay) -> None:
    relay = relay_start(PROJECT_ALLOCATIONS_MAX=10, **UNLIMITED)
    clients = [TurnClient(relay.address, *relay.credential(f"c{n}")) for n in range(100)]
    for client in clients:
        client.challenge_take(client.exchange(Method.ALLOCATE, [REQUESTED]))
    datagrams = [
        message_encode(Method.ALLOCATE, Kind.REQUEST, client.signed([REQUESTED]), key=client.key)
        for client in clients
    ]
    for client, datagram in zip(clients, datagrams, strict=True):
        client.transmit(datagram)
    codes = [message_decode(client.datagram_receive()).error_code for client in clients]
    assert (codes.count(0), codes.count(486)) == (10, 90)
    for client, code in zip(clients, codes, strict=True):
        if code == 0:
            client.refresh(0)
    for client in clients[:10]:
        client.allocate()
    for client in clients:
        client.socket.close()
