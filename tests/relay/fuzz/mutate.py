"""Messages to fuzz with: well-formed ones, and the same with something wrong somewhere.

Every case follows from its number and a seed, so what is found can be made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from relay.core import attributes
from tests.turn_client import PAIR, Kind, message_encode

# What makes a message malformed by its mere place comes seldom, else nothing else was tried.
SELDOM = (0x0008, 0x001C, 0x8028)  # the integrity attributes, FINGERPRINT
KINDS = sorted(
    value
    for name, value in vars(attributes).items()
    if name.isupper() and isinstance(value, int) and value not in SELDOM
)
METHODS = (0x001, 0x003, 0x004, 0x006, 0x007, 0x008, 0x009, 0x00A, 0x00B, 0x00C, 0xFFF)
VALUES = (
    *(b"", b"\0", b"\0" * 3, b"\x80", b"\x11\0\0\0", b"\xff" * 4, b"\x01\0\0\0", b"\x02\0\0\0"),
    *(b"\0\x01\xe1\x2b\x29\x1a\x0a\x4a", b"\0\x02" + b"\xff" * 18, b"\0" * 8, b"\x40\0\0\0"),
    *(b"x" * 508, b"\xff\xfe\xfd", b"obMatJos2AAAB", b"\0\x01\0\0\0\x02\0\0", b"\0\x02\0\0"),
)


class Dice:
    """Numbers that look random and follow from a seed."""

    def __init__(self, seed: int) -> None:
        self._stream = self._blocks(seed)

    @staticmethod
    def _blocks(seed: int) -> Iterator[int]:
        block = hashlib.blake2b(seed.to_bytes(16, "big")).digest()
        while True:
            yield from block
            block = hashlib.blake2b(block).digest()

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1; at most 65536."""
        return (next(self._stream) << 8 | next(self._stream)) % limit

    def bytes(self, count: int) -> bytes:
        """Bytes."""
        return bytes(next(self._stream) for _ in range(count))


def attributes_make(dice: Dice) -> list[tuple[int, bytes]]:
    """Attributes, mostly known ones, with values that fit them or do not."""
    made = []
    for _ in range(dice.below(6)):
        kind = KINDS[dice.below(len(KINDS))]
        if not dice.below(16):
            kind = dice.below(0x10000) if dice.below(2) else SELDOM[dice.below(3)]
        known = dice.below(4)
        value = VALUES[dice.below(len(VALUES))] if known else dice.bytes(dice.below(40))
        made.append((kind, value))
    return made


def message_make(
    dice: Dice, credential: list[tuple[int, bytes]], key: bytes, *, sha256: bool = False
) -> bytes:
    """A request or an indication, signed more often than not."""
    method = METHODS[dice.below(len(METHODS))]
    kind = (Kind.INDICATION, Kind.SUCCESS, Kind.REQUEST)[min(dice.below(8), 2)]
    made = attributes_make(dice)
    transaction = dice.bytes(12)
    if dice.below(4):
        return message_encode(
            method, kind, [*made, *credential], transaction=transaction, key=key, sha256=sha256
        )
    return message_encode(method, kind, made, transaction=transaction)


def datagram_make(dice: Dice, message: bytes) -> bytes:
    """The message as it is, or damaged: bits, length, end; or ChannelData; or bytes of no kind."""
    data = bytearray(message)
    match dice.below(12):
        case 0:
            return dice.bytes(dice.below(80))
        case 1:
            header = PAIR.pack(0x4000 + dice.below(0x4000), dice.below(64))
            return header + dice.bytes(dice.below(64))
        case 2:
            return bytes(data[: dice.below(len(data) + 1)])
        case 3:
            return bytes(data) + dice.bytes(dice.below(8))
        case 4 | 5:
            for _ in range(1 + dice.below(3)):
                data[dice.below(len(data))] = dice.below(256)
        case _:
            pass
    return bytes(data)
