"""A stream cut anywhere gives the same messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import MalformedMessageError
from relay.core.framing import StreamFramer
from tests.turn_client import HEADER, MAGIC_COOKIE, PAIR

channels = st.builds(
    lambda number, data: PAIR.pack(number, len(data)) + data + bytes(-len(data) % 4),
    st.integers(0x4000, 0x7FFF),
    st.binary(max_size=70),
)
stuns = st.builds(
    lambda kind, body: HEADER.pack(kind, len(body) * 4, MAGIC_COOKIE, bytes(12)) + body * 4,
    st.integers(0, 0x3FFF),
    st.binary(max_size=20),
)
messages = st.lists(st.one_of(channels, stuns), max_size=8)
cuts = st.lists(st.integers(0, 600), max_size=40)


def pieces(stream: bytes, at: list[int]) -> list[bytes]:
    """The stream in pieces, cut at these places."""
    ends = sorted({min(place, len(stream)) for place in at} | {len(stream)})
    return [stream[low:high] for low, high in zip([0, *ends], ends, strict=False)]


def receive_all(framer: StreamFramer, chunks: list[bytes]) -> list[bytes]:
    return [bytes(message) for chunk in chunks for message in framer.receive(chunk)]


@given(messages, cuts)
def test_stream_cut_anywhere_gives_the_same_messages(expected: list[bytes], at: list[int]) -> None:
    framer = StreamFramer()
    assert receive_all(framer, pieces(b"".join(expected), at)) == expected
    assert framer.pending_bytes == 0


@given(messages)
def test_stream_of_single_bytes_gives_the_same_messages(expected: list[bytes]) -> None:
    stream = b"".join(expected)
    assert receive_all(StreamFramer(), [bytes((byte,)) for byte in stream]) == expected


def outcome(stream: bytes, at: list[int]) -> tuple[list[bytes], bool]:
    """The messages before the stream turned out to be junk, and whether it did."""
    framer = StreamFramer(length_max=256)
    found: list[bytes] = []
    try:
        for piece in pieces(stream, at):
            found.extend(map(bytes, framer.receive(piece)))
            assert framer.pending_bytes < 256
    except MalformedMessageError:
        return found, True
    return found, False


@given(messages, st.binary(max_size=300), cuts)
def test_junk_ends_a_stream_wherever_it_is_cut(
    good: list[bytes], junk: bytes, at: list[int]
) -> None:
    stream = b"".join(good) + junk
    # One cut more or less may only show the junk earlier or later, never other messages.
    assert outcome(stream, at)[0] == outcome(stream, [])[0]


@pytest.mark.parametrize(
    "head",
    [
        b"\x80\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x00\x01\x00\x03",
        b"\x00\x01\x00\x00" + b"GET ",
        b"GET / HTTP/1.1\r\n",
    ],
    ids=["rtp", "ones", "odd length", "no cookie", "http"],
)
def test_junk_is_malformed(head: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        receive_all(StreamFramer(length_max=4096), [head])


def test_message_longer_than_the_maximum_is_malformed_before_it_is_held() -> None:
    framer = StreamFramer(length_max=64)
    with pytest.raises(MalformedMessageError):
        receive_all(framer, [PAIR.pack(0x4000, 61)])
    assert receive_all(StreamFramer(length_max=64), [PAIR.pack(0x4000, 60) + bytes(60)])


def test_longest_channeldata_is_whole() -> None:
    message = PAIR.pack(0x4000, 0xFFFF) + bytes(0x10000)
    assert receive_all(StreamFramer(), pieces(message, [3, 5, 40_000])) == [message]
