"""ChannelData messages (RFC 8656 section 12.4).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |         Channel Number        |            Length             |
    /                       Application Data                        /

Over UDP the padding is optional: up to 3 bytes may follow the data, and Length does not count them.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from relay.core.errors import MalformedMessageError

HEADER_LENGTH = 4
CHANNEL_MIN = 0x4000
CHANNEL_MAX_STRICT = 0x4FFF  # RFC 8656 section 12
CHANNEL_MAX_WIDE = 0x7FFF  # RFC 5766; clients of that age draw from here
PADDING_MAX = 3

CHANNELDATA_HEADER = Struct("!HH")


class ChannelData(NamedTuple):
    """A channel number and the application data."""

    number: int
    data: bytes


def channeldata_decode(datagram: bytes) -> ChannelData:
    """Decode one ChannelData message.

    Args:
        datagram: the whole UDP payload; up to 3 bytes of padding may follow the data.

    Returns:
        The channel number (0x4000..0x7FFF) and exactly Length bytes of data.

    Raises:
        MalformedMessageError: header cut short, a first byte that is not ChannelData's, Length
            beyond the datagram, or more than padding behind the data.
    """
    if len(datagram) < HEADER_LENGTH:
        raise MalformedMessageError("shorter than a ChannelData header")
    number, length = CHANNELDATA_HEADER.unpack_from(datagram)
    if not CHANNEL_MIN <= number <= CHANNEL_MAX_WIDE:
        raise MalformedMessageError("not a channel number")
    if not length <= len(datagram) - HEADER_LENGTH <= length + PADDING_MAX:
        raise MalformedMessageError("Length does not match the datagram")
    return ChannelData(number, datagram[HEADER_LENGTH : HEADER_LENGTH + length])


def channeldata_encode(number: int, data: bytes) -> bytes:
    """Encode one ChannelData message for UDP: no padding."""
    return CHANNELDATA_HEADER.pack(number, len(data)) + data
