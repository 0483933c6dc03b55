"""Several datagrams with one system call: recvmmsg(2), which Python does not have.

    vectors  | where, how long | ...                  where a datagram goes
    messages | name, vector, flags, length | ...
    slots    | who sent it, datagram ....... | who sent it, datagram ....... | ...

All of it is laid out once; a call fills in lengths and slots. To take a datagram costs half
of what `recvfrom_into` does: no text is made of its address, and an empty socket is not asked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from mmap import mmap
from struct import Struct
from typing import Final

from relay.core.addresses import SockAddress
from relay.core.channeldata import HEADER_LENGTH

DATAGRAM_LENGTH_MAX: Final = 65535
# A little more than that: slots 64 KiB apart would be in one another's way in the cache.
SLOT_BYTES: Final = (1 << 16) + 1088
SLOTS: Final = 16
NOTHING: Final = frozenset({errno.EAGAIN, errno.EINTR})


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vectors_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


# With Python's lock held: the call does not wait, and to let the lock go costs more than the call.
_recvmmsg = ctypes.PyDLL(None, use_errno=True).recvmmsg
_recvmmsg.argtypes = (
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int),
    ctypes.c_void_p,  # a timeout
)
_recvmmsg.restype = ctypes.c_int
_DONTWAIT: Final = int(socket.MSG_DONTWAIT)

_LENGTH_AT: Final = _Message.length.offset
_LENGTH: Final = Struct(f"={_LENGTH_AT}xI{ctypes.sizeof(_Message) - _LENGTH_AT - 4}x")
# What says something in struct sockaddr_in and sockaddr_in6; both begin with family and port.
_NAME_LENGTHS: Final = {socket.AF_INET: 8, socket.AF_INET6: 28}
_NAME_ROOM: Final = 32
_PORT: Final = Struct("!2xH")
_SCOPE: Final = Struct("=24xI")

# A datagram; where what is behind a ChannelData header lies; its length; who sent it
# (`name_decode`), and what a ChannelData header says, if it is one and has 4 bytes.
Datagrams = Iterator[tuple[memoryview, int, tuple[int], tuple[bytes, int, int]]]


class ReceiveBatch:
    """Room for what one call takes from a UDP socket.

    Args:
        endpoint: the socket; it is never waited for.
    """

    def __init__(self, endpoint: socket.socket) -> None:
        self._descriptor = endpoint.fileno()
        name_length = _NAME_LENGTHS[endpoint.family]
        behind = SLOT_BYTES - _NAME_ROOM - HEADER_LENGTH
        self._head = Struct(f"!{name_length}s{_NAME_ROOM - name_length}xHH{behind}x")
        room = bytearray(SLOT_BYTES * SLOTS)
        self._vectors = (_Vector * SLOTS)()
        self._messages = (_Message * SLOTS)()
        room_at = room_address(room)
        for index, (vector, message) in enumerate(zip(self._vectors, self._messages, strict=True)):
            slot_at = room_at + SLOT_BYTES * index
            vector.base, vector.length = slot_at + _NAME_ROOM, DATAGRAM_LENGTH_MAX
            header = message.header
            header.name, header.name_length = slot_at, _NAME_ROOM
            header.vectors = ctypes.addressof(vector)
            header.vectors_count = 1
        self._room = memoryview(room)
        begins = [SLOT_BYTES * index + _NAME_ROOM for index in range(SLOTS)]
        self._datagrams = [self._room[at : at + DATAGRAM_LENGTH_MAX] for at in begins]
        self._data_at = [room_at + at + HEADER_LENGTH for at in begins]
        self._messages_bytes = memoryview(self._messages).cast("B")
        self._messages_at = ctypes.addressof(self._messages)

    def receive(self) -> int:
        """Take what waits, SLOTS datagrams at most.

        Returns:
            How many there were. Where they are fewer than SLOTS nothing more waits, unless it is an
            error.

        Raises:
            OSError: the socket had one to tell, of an ICMP message for example.
        """
        taken: int = _recvmmsg(self._descriptor, self._messages_at, SLOTS, _DONTWAIT, None)
        if taken < 0:
            code = ctypes.get_errno()
            if code in NOTHING:
                return 0
            raise OSError(code, os.strerror(code))
        return taken

    def datagrams(self, taken: int) -> Datagrams:
        """The datagrams that `receive` has taken; good until it takes the next ones."""
        lengths = _LENGTH.iter_unpack(self._messages_bytes[: _LENGTH.size * taken])
        heads = self._head.iter_unpack(self._room[: SLOT_BYTES * taken])
        return zip(self._datagrams, self._data_at, lengths, heads, strict=False)

    def datagram_at(self, data_at: int) -> tuple[memoryview, tuple[bytes, int, int]]:
        """One of them, by where what is behind its header lies.

        Raises:
            ValueError: there is none.
        """
        index = self._data_at.index(data_at)
        head: tuple[bytes, int, int] = self._head.unpack_from(self._room, SLOT_BYTES * index)
        return self._datagrams[index], head


def name_decode(name: bytes) -> SockAddress:
    """Who sent a datagram; the host with its scope where it is good on one link only."""
    (port,) = _PORT.unpack_from(name)
    if len(name) < _NAME_LENGTHS[socket.AF_INET6]:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    host = socket.inet_ntop(socket.AF_INET6, name[8:24])
    (scope,) = _SCOPE.unpack(name)
    return f"{host}%{scope}" if scope else host, port


def room_address(room: bytearray | mmap) -> int:
    """Where it lies; it must not be let go while that is used."""
    return ctypes.addressof((ctypes.c_char * len(room)).from_buffer(room))
