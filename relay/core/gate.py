"""What holds data back: a bitrate, and "media only" (RFC 7983). Both drop; neither disconnects.

An allocation without such limits has no gate at all, so the fast lane pays one comparison for it.
"""

from __future__ import annotations

from math import inf
from mmap import mmap

BURST_SECONDS = 0.1
BITRATE = "bitrate"
NOT_MEDIA = "not media"

# Wherever data lies.
Buffer = bytes | bytearray | memoryview | mmap


def _is_media(first_byte: int) -> bool:
    """Whether a packet that begins with this byte is WebRTC's (RFC 7983 section 7).

    0..3 STUN, 20..63 DTLS, 64..79 TURN channels, 128..191 RTP and RTCP. The long headers of QUIC,
    without which none of its connections begins, are 192..255 (RFC 9443).
    """
    return first_byte <= 3 or 20 <= first_byte <= 79 or 128 <= first_byte <= 191


MEDIA_FIRST_BYTES = frozenset(filter(_is_media, range(256)))


class Passage:
    """One direction of an allocation's data: a token bucket, and whether only media may pass.

    What is spent may leave the bucket in debt by one packet, so that any packet size passes.
    Every packet is judged by one call: it costs what the fast lane pays for limits.
    """

    __slots__ = ("_at", "_burst", "_media_only", "_rate", "_tokens")

    def __init__(self, bytes_per_second: float | None, media_only: bool, now: float) -> None:
        self._rate = bytes_per_second
        self._burst = (bytes_per_second or 0.0) * BURST_SECONDS
        self._tokens = self._burst
        self._at = now
        self._media_only = media_only

    def refusal(self, buffer: Buffer, at: int, length: int, now: float) -> str | None:
        """Judge a packet, and spend its bytes where it may pass.

        Args:
            buffer: the data is in it; at most its first byte is looked at.
            at: where it begins.
            length: of the data, in bytes.
            now: the time.

        Returns:
            BITRATE or NOT_MEDIA where it is to be dropped, else None.
        """
        if self._media_only and not (length and buffer[at] in MEDIA_FIRST_BYTES):
            return NOT_MEDIA
        rate = self._rate
        if rate is None:
            return None
        tokens = self._tokens + (now - self._at) * rate
        self._at = now
        if tokens > self._burst:
            tokens = self._burst
        if tokens <= 0.0:
            self._tokens = tokens
            return BITRATE
        self._tokens = tokens - length
        return None

    def rest(self, length: int, now: float) -> float:
        """Charge what a stream has already carried, whatever that leaves.

        Returns:
            For how many seconds nothing more is to be read: a stream cannot do without what would
            be dropped.
        """
        rate = self._rate
        if rate is None:
            return 0.0
        tokens = self._tokens + (now - self._at) * rate
        self._at = now
        self._tokens = min(tokens, self._burst) - length
        if not rate:
            return inf
        return max(0.0, -self._tokens / rate)


class Gate:
    """What the data of one allocation has to pass; each direction has the whole bitrate.

    Attributes:
        from_client: on its way to peers.
        from_peer: on its way to the client.
    """

    __slots__ = ("from_client", "from_peer")

    def __init__(self, bitrate_bps: int | None, media_only: bool, now: float) -> None:
        rate = None if bitrate_bps is None else bitrate_bps / 8
        self.from_client = Passage(rate, media_only, now)
        self.from_peer = Passage(rate, media_only, now)
