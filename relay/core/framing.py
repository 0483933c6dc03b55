"""Messages cut out of a byte stream (RFC 8489 section 6.2.2, RFC 8656 section 12.5).

    00...... ........ | length, without the header | magic cookie | ...      STUN: 20 + length bytes
    01...... ........ | length, without padding    | data, padding           4 + length, up to 4n

A STUN message is a multiple of four bytes by itself; on a stream ChannelData is padded to one, so
that every message begins on such a boundary.
"""

from __future__ import annotations

from collections.abc import Iterator

from relay.core.addresses import MAGIC_COOKIE
from relay.core.channeldata import CHANNEL_MIN, CHANNELDATA_HEADER
from relay.core.channeldata import HEADER_LENGTH as CHANNELDATA_HEADER_LENGTH
from relay.core.errors import MalformedMessageError
from relay.core.stun import HEADER_LENGTH as STUN_HEADER_LENGTH

HEAD_LENGTH = 8  # what tells a STUN message's length, and that it is one
MESSAGE_LENGTH_MAX = STUN_HEADER_LENGTH + 0xFFFC


class StreamFramer:
    """Cuts one stream.

    It holds less than one message, and nothing while the stream stands between two.

    Attributes:
        length_max: a longer message is malformed; may be changed while the stream runs.
    """

    __slots__ = ("_pending", "_wanted", "length_max")

    def __init__(self, length_max: int = MESSAGE_LENGTH_MAX) -> None:
        self.length_max = length_max
        self._pending = bytearray()
        self._wanted = 0  # bytes without which what is pending is no message

    @property
    def pending_bytes(self) -> int:
        """How much of a message that is not whole yet is held."""
        return len(self._pending)

    def receive(self, data: bytes | memoryview) -> Iterator[memoryview]:
        """Take in the next bytes and cut off what is whole; to be iterated to its end.

        Args:
            data: any number of bytes.

        Yields:
            Messages with their padding, in order. They may be views of `data`.

        Raises:
            MalformedMessageError: neither STUN nor ChannelData, or longer than `length_max`;
                nothing can be found in this stream any more.
        """
        if self._pending:
            self._pending += data
            if len(self._pending) < self._wanted:
                return
            data = bytes(self._pending)
            self._pending.clear()
        rest = memoryview(data)
        while len(rest) >= CHANNELDATA_HEADER_LENGTH:
            length = message_length(rest)
            if length > self.length_max:
                raise MalformedMessageError("longer than a message may be here")
            if not 0 < length <= len(rest):
                self._wanted = length or HEAD_LENGTH
                break
            yield rest[:length]
            rest = rest[length:]
        else:
            self._wanted = CHANNELDATA_HEADER_LENGTH
        self._pending += rest


def message_length(head: bytes | memoryview) -> int:
    """The length of the message that begins here, with header and padding.

    Args:
        head: at least its first 4 bytes.

    Returns:
        Bytes; 0 where more than `head` is needed to tell.

    Raises:
        MalformedMessageError: no message begins like this.
    """
    number, length = CHANNELDATA_HEADER.unpack_from(head)
    if number & 0xC000 == CHANNEL_MIN:
        return CHANNELDATA_HEADER_LENGTH + (int(length) + 3 & ~3)
    if number & 0xC000 or length % 4:
        raise MalformedMessageError("neither STUN nor ChannelData")
    if len(head) < HEAD_LENGTH:
        return 0
    if head[4:HEAD_LENGTH] != MAGIC_COOKIE:
        raise MalformedMessageError("no magic cookie")
    return STUN_HEADER_LENGTH + int(length)
