"""Fuzz the parser and the whole core: `make fuzz`, or

    python -m tests.relay.fuzz [CASES] [--seed N]

Every case is made from seed and number. The parsers may raise `MalformedMessageError` and nothing
else; the server may raise nothing at all, and what it answers must be a message.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from contextlib import suppress

from relay.core import attributes
from relay.core.addresses import xor_address_decode
from relay.core.channeldata import channeldata_decode
from relay.core.errors import MalformedMessageError
from relay.core.stun import stun_decode
from tests.relay.fake_link import FakeClient
from tests.relay.fuzz.mutate import Dice, datagram_make, message_make
from tests.relay.tokens import KEY, THIRD_PARTY, TokenClient, world_make
from tests.turn_client import Kind, TurnError, message_decode

REPORTED_EVERY = 100_000
CASES = 5_000_000
RENEWED_EVERY = 500


class Fuzzer:
    """A server and two clients with an allocation each, as long as the cases leave it to them.

    One has a password, the other an access token.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.answered = 0
        self.renew()

    def renew(self) -> None:
        """A new server: nothing that cases left behind goes further than this."""
        self.world = world_make()
        self.clients: tuple[FakeClient, ...] = (
            self.world.client(),
            TokenClient(self.world, address=("192.0.2.8", 40000)),
        )
        for client in self.clients:
            with suppress(TurnError):
                client.allocate()

    def case(self, number: int) -> None:
        """One case."""
        if number % RENEWED_EVERY == 0:
            self.renew()
        dice = Dice(self.seed << 64 | number)
        client = self.clients[number % 3 == 0]
        credential = list(client.credential_attributes())
        message = message_make(dice, credential, client.key, sha256=number % 7 == 0)
        datagram = datagram_make(dice, message)
        parse(datagram)
        client.transmit(datagram)
        while client.arrived:
            answer = message_decode(client.datagram_receive())
            assert answer.kind is not Kind.REQUEST
            self.answered += 1
        self.world.to_peers.clear()
        client.sent.clear()
        client.received.clear()
        self.world.now += dice.below(3)


def parse(datagram: bytes) -> None:
    """Everything that reads bytes of the network."""
    with suppress(MalformedMessageError):
        channeldata_decode(datagram)
    with suppress(MalformedMessageError):
        message = stun_decode(datagram)
        message.unknown_required()
        message.integrity_verify(b"key")
        THIRD_PARTY.open(KEY.key, message.values.get(attributes.ACCESS_TOKEN, datagram))
        for kind in list(message.values):
            with suppress(MalformedMessageError):
                message.text(kind, 508)
            with suppress(MalformedMessageError):
                xor_address_decode(message.values[kind], message.transaction_id)
        message.repeated(attributes.XOR_PEER_ADDRESS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="?", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    chosen = parser.parse_args()
    fuzzer = Fuzzer(chosen.seed)
    say(f"seed {chosen.seed}, {chosen.cases} cases")
    for number in range(chosen.cases):
        try:
            fuzzer.case(number)
        except BaseException:
            say(f"case {number} of seed {chosen.seed}")
            raise
        if number % REPORTED_EVERY == REPORTED_EVERY - 1:
            say(f"{number + 1} cases, {fuzzer.answered} answers, {dict(fuzzer.world.turn.dropped)}")


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
