"""STUN messages: decode and encode (RFC 8489 sections 5, 6 and 14).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |0 0|     STUN Message Type     |         Message Length        |
    |                         Magic Cookie                          |
    |                     Transaction ID (96 bits)                  |
    |         Type                  |            Length             |
    |                         Value (variable)                ....

The message type is `M11-M7 C1 M6-M4 C0 M3-M0`: class bits sit at 0x0100 and 0x0010.
"""

from __future__ import annotations

import hmac
from collections.abc import Container, Iterable, Iterator
from struct import Struct

from relay.core import attributes
from relay.core.addresses import MAGIC_COOKIE
from relay.core.error_codes import REASONS
from relay.core.errors import MalformedMessageError
from relay.core.integrity import (
    SHA1_INTEGRITY,
    SHA256_INTEGRITY,
    IntegrityKey,
    IntegrityKind,
    fingerprint,
    message_integrity,
)

HEADER_LENGTH = 20
ATTRIBUTE_HEADER_LENGTH = 4
FINGERPRINT_LENGTH = 8  # with its header

CLASS_MASK = 0x0110
REQUEST = 0x0000
INDICATION = 0x0010
SUCCESS = 0x0100
ERROR = 0x0110

BINDING = 0x001
ALLOCATE = 0x003
REFRESH = 0x004
SEND = 0x006
DATA = 0x007
CREATE_PERMISSION = 0x008
CHANNEL_BIND = 0x009
CONNECT = 0x00A
CONNECTION_BIND = 0x00B
CONNECTION_ATTEMPT = 0x00C

INTEGRITY_KINDS = {kind.attribute: kind for kind in (SHA1_INTEGRITY, SHA256_INTEGRITY)}
_COVERING = INTEGRITY_KINDS.keys() | {attributes.FINGERPRINT}
TRUNCATED_LENGTHS = range(16, SHA256_INTEGRITY.length, 4)

_HEADER = Struct("!HH4s12s")
_ATTRIBUTE = Struct("!HH")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by length modulo 4; always zero bytes


class StunMessage:
    """One decoded message; attribute values stay bytes until somebody asks for one.

    Attributes:
        method: 12 bits, for example BINDING.
        message_class: REQUEST, INDICATION, SUCCESS or ERROR.
        transaction_id: 12 bytes.
        values: attribute type to value, the first of a duplicated type, nothing that stands
            after the first integrity attribute but the second one.
        integrity: which of the two attributes covers the message, the stronger where both stand;
            None where neither does.
        fingerprinted: whether it ends in a FINGERPRINT, which was right.
    """

    __slots__ = (
        "_counted",
        "_covered",
        "_raw",
        "fingerprinted",
        "integrity",
        "message_class",
        "method",
        "transaction_id",
        "values",
    )

    def __init__(
        self,
        raw: bytes,
        message_type: int,
        transaction_id: bytes,
        values: dict[int, bytes],
        integrity: tuple[IntegrityKind, int, int] | None,
    ) -> None:
        self._raw = raw
        self.message_class = message_type & CLASS_MASK
        self.method = message_type & ~CLASS_MASK
        self.transaction_id = transaction_id
        self.values = values
        # What the integrity covers ends here, and what counts ends there: before the first of two.
        self.integrity: IntegrityKind | None
        self.integrity, self._covered, self._counted = integrity or (None, len(raw), len(raw))
        self.fingerprinted = attributes.FINGERPRINT in values

    def integrity_verify(self, key: bytes) -> bool:
        """Compare the integrity attribute with `key`'s, in constant time; False without one."""
        kind, offset = self.integrity, self._covered
        if kind is None:
            return False
        # The length field counts up to the end of the integrity attribute (section 14.5).
        length = offset + ATTRIBUTE_HEADER_LENGTH + kind.length - HEADER_LENGTH
        covered = self._raw[:2] + length.to_bytes(2, "big") + self._raw[4:offset]
        expected = message_integrity(key, kind, covered)
        return hmac.compare_digest(expected, self.values[kind.attribute])

    def unknown_required(self, understood: Container[int] = attributes.UNDERSTOOD) -> list[int]:
        """The comprehension-required attribute types that are not `understood`."""
        return [
            kind
            for kind in self.values
            if kind < attributes.COMPREHENSION_OPTIONAL and kind not in understood
        ]

    def repeated(self, kind: int) -> list[bytes]:
        """Every value of a type that may stand more than once (XOR-PEER-ADDRESS), in order."""
        walk = _attributes_walk(self._raw, self._counted)
        return [value for found, value in walk if found == kind]

    def text(self, kind: int, length_max: int) -> str | None:
        """A UTF-8 attribute.

        Returns:
            The text, or None where the attribute is absent.

        Raises:
            MalformedMessageError: longer than `length_max` bytes, or not UTF-8.
        """
        value = self.values.get(kind)
        if value is None:
            return None
        if len(value) > length_max:
            raise MalformedMessageError(f"attribute 0x{kind:04x} exceeds {length_max} bytes")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise MalformedMessageError(f"attribute 0x{kind:04x} is not UTF-8") from error


def stun_decode(datagram: bytes) -> StunMessage:
    """Decode one STUN message that fills `datagram` exactly.

    Args:
        datagram: the UDP payload, or one message cut out of a stream.

    Returns:
        The message; a FINGERPRINT that stands last has been checked.

    Raises:
        MalformedMessageError: too short, no magic cookie, lengths that do not add up, a wrong
            FINGERPRINT, or an integrity attribute of the wrong length.
    """
    if len(datagram) < HEADER_LENGTH:
        raise MalformedMessageError("shorter than a STUN header")
    message_type, length, cookie, transaction_id = _HEADER.unpack_from(datagram)
    if message_type & 0xC000 or cookie != MAGIC_COOKIE:
        raise MalformedMessageError("not a STUN message")
    if length % 4 or HEADER_LENGTH + length != len(datagram):
        raise MalformedMessageError("message length does not match the datagram")
    values, integrity = _attributes_decode(datagram)
    return StunMessage(datagram, message_type, transaction_id, values, integrity)


def _attributes_decode(
    datagram: bytes,
) -> tuple[dict[int, bytes], tuple[IntegrityKind, int, int] | None]:
    """The values that count, and which attribute covers what: its offset, and the first one's."""
    values: dict[int, bytes] = {}
    integrity: tuple[IntegrityKind, int, int] | None = None
    unpack, offset, end = _ATTRIBUTE.unpack_from, HEADER_LENGTH, len(datagram)
    while offset < end:
        kind, length = unpack(datagram, offset)
        value_offset = offset + ATTRIBUTE_HEADER_LENGTH
        next_offset = value_offset + (length + 3 & ~3)
        if next_offset > end:
            raise MalformedMessageError("attribute runs past the end of the message")
        value = datagram[value_offset : value_offset + length]
        if kind in _COVERING:
            if kind == attributes.FINGERPRINT:
                _fingerprint_check(datagram, offset, value)
                values[kind] = value
            elif integrity is None:
                integrity = _integrity_kind(kind, length), offset, offset
                values[kind] = value
            elif kind == attributes.MESSAGE_INTEGRITY_SHA256 and kind not in values:
                integrity = _integrity_kind(kind, length), offset, integrity[2]
                values[kind] = value
        # Of a duplicated attribute the first counts (section 14); what stands after an integrity
        # attribute is ignored (section 9).
        elif integrity is None and kind not in values:
            values[kind] = value
        offset = next_offset
    return values, integrity


def _integrity_kind(kind: int, length: int) -> IntegrityKind:
    found = INTEGRITY_KINDS[kind]
    # A truncated value is no fault of form (section 14.6). TURN does not allow it: none matches.
    is_truncated = found is SHA256_INTEGRITY and length in TRUNCATED_LENGTHS
    if length != found.length and not is_truncated:
        raise MalformedMessageError("integrity attribute of the wrong length")
    return found


def _attributes_walk(datagram: bytes, end: int) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message that was decoded before, up to `end`."""
    offset = HEADER_LENGTH
    while offset < end:
        kind, length = _ATTRIBUTE.unpack_from(datagram, offset)
        value_offset = offset + ATTRIBUTE_HEADER_LENGTH
        yield kind, datagram[value_offset : value_offset + length]
        offset = value_offset + (length + 3 & ~3)


def _fingerprint_check(datagram: bytes, offset: int, value: bytes) -> None:
    if offset + ATTRIBUTE_HEADER_LENGTH + 4 != len(datagram):
        raise MalformedMessageError("FINGERPRINT is not the last attribute")
    if value != fingerprint(datagram[:offset]):
        raise MalformedMessageError("FINGERPRINT does not match")


def stun_encode(
    message_type: int,
    transaction_id: bytes,
    values: Iterable[tuple[int, bytes]],
    key: IntegrityKey | None = None,
    *,
    fingerprinted: bool = False,
) -> bytes:
    """Encode one message, with an integrity attribute where `key` is given.

    Args:
        message_type: method and class, ORed.
        transaction_id: 12 bytes.
        values: attribute types and values in their order; padding is added, zero bytes.
        key: the key, and which integrity attribute to make.
        fingerprinted: whether a FINGERPRINT ends the message.
    """
    pack = _ATTRIBUTE.pack
    body = b"".join(
        [pack(kind, len(value)) + value + _PADDING[len(value) & 3] for kind, value in values]
    )
    length = len(body)
    if key is not None:
        secret, kind = key
        length += ATTRIBUTE_HEADER_LENGTH + kind.length
        covered = _HEADER.pack(message_type, length, MAGIC_COOKIE, transaction_id) + body
        integrity = message_integrity(secret, kind, covered)
        body += _ATTRIBUTE.pack(kind.attribute, kind.length) + integrity
    if fingerprinted:
        length += FINGERPRINT_LENGTH
        covered = _HEADER.pack(message_type, length, MAGIC_COOKIE, transaction_id) + body
        return covered + _ATTRIBUTE.pack(attributes.FINGERPRINT, 4) + fingerprint(covered)
    return _HEADER.pack(message_type, length, MAGIC_COOKIE, transaction_id) + body


def stun_answer(
    request: StunMessage,
    message_class: int,
    values: Iterable[tuple[int, bytes]],
    key: IntegrityKey | None,
) -> bytes:
    """Encode the answer to `request`: SUCCESS or ERROR; with FINGERPRINT where that had one."""
    return stun_encode(
        request.method | message_class,
        request.transaction_id,
        values,
        key,
        fingerprinted=request.fingerprinted,
    )


def answer_key(request: StunMessage, key: bytes) -> IntegrityKey:
    """What covers the answer to a request that a long-term key covers (section 9.2.4).

    The algorithms say it that the request names, not the integrity attribute that it has: without
    them it is MESSAGE-INTEGRITY.
    """
    values = request.values
    is_modern = attributes.PASSWORD_ALGORITHM in values or attributes.PASSWORD_ALGORITHMS in values
    return IntegrityKey(key, SHA256_INTEGRITY if is_modern else SHA1_INTEGRITY)


def error_code_encode(code: int, *, explained: bool = False) -> bytes:
    """The value of ERROR-CODE (RFC 8489 section 14.8): 4 bytes, and the reason phrase if asked."""
    reason = REASONS[code] if explained else ""
    return bytes((0, 0, code // 100, code % 100)) + reason.encode()
