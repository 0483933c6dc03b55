"""Several datagrams with one system call: recvmmsg(2), which Python does not have.

    names    | sockaddr | sockaddr | ...              who sent it
    vectors  | where, how long | ...                  where it goes
    messages | name, vector, flags, length | ...
    slots    | datagram ......... | datagram ......... | ...

All of it is laid out once; a call fills in names, lengths and slots. To take a datagram costs half
of what `recvfrom_into` does: no text is made of its address, and an empty socket is not asked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from struct import Struct
from typing import Final

from relay.core.addresses import SockAddress

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
_NAME_IPV4: Final = Struct("=8s8x")
_NAME_IPV6: Final = Struct("=28s")
_PORT: Final = Struct("!2xH")
_SCOPE: Final = Struct("=24xI")

# A datagram's slot, its length, and who sent it (`name_decode`); the latter two are tuples of one.
Datagrams = Iterator[tuple[memoryview, tuple[int], tuple[bytes]]]


class ReceiveBatch:
    """Room for what one call takes from a UDP socket.

    Args:
        endpoint: the socket; it is never waited for.
    """

    def __init__(self, endpoint: socket.socket) -> None:
        self._descriptor = endpoint.fileno()
        self._name = _NAME_IPV6 if endpoint.family == socket.AF_INET6 else _NAME_IPV4
        names = bytearray(self._name.size * SLOTS)
        room = bytearray(SLOT_BYTES * SLOTS)
        self._vectors = (_Vector * SLOTS)()
        self._messages = (_Message * SLOTS)()
        names_at, room_at = _address(names), _address(room)
        for index, (vector, message) in enumerate(zip(self._vectors, self._messages, strict=True)):
            vector.base, vector.length = room_at + SLOT_BYTES * index, DATAGRAM_LENGTH_MAX
            header = message.header
            header.name = names_at + self._name.size * index
            header.name_length = self._name.size
            header.vectors = ctypes.addressof(vector)
            header.vectors_count = 1
        view = memoryview(room)
        self._slots = [view[SLOT_BYTES * at : SLOT_BYTES * (at + 1)] for at in range(SLOTS)]
        self._names = memoryview(names)
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
        names = self._name.iter_unpack(self._names[: self._name.size * taken])
        return zip(self._slots, lengths, names, strict=False)


def name_decode(name: bytes) -> SockAddress:
    """Who sent a datagram; the host with its scope where it is good on one link only."""
    (port,) = _PORT.unpack_from(name)
    if len(name) < _NAME_IPV6.size:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    host = socket.inet_ntop(socket.AF_INET6, name[8:24])
    (scope,) = _SCOPE.unpack(name)
    return f"{host}%{scope}" if scope else host, port


def _address(room: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(room)).from_buffer(room))
