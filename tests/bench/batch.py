"""sendmmsg(2) and recvmmsg(2): many datagrams for one system call, so that the load generator
is never what the bench measures. Plain ctypes; the arrays are laid out once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

MSG_DONTWAIT = 0x40
RECEIVE_BYTES = 2048
libc = ctypes.CDLL(None, use_errno=True)


class IoVec(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class MsgHdr(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(IoVec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class MMsgHdr(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("header", MsgHdr), ("length", ctypes.c_uint32))


def sockaddr_in(address: tuple[str, int]) -> bytes:
    """struct sockaddr_in of an IPv4 address."""
    family = struct.pack("=H", socket.AF_INET)
    return family + struct.pack("!H4s8x", address[1], socket.inet_aton(address[0]))


class Sender:
    """One payload to a ring of destinations, a slice of the ring at a time."""

    def __init__(
        self, sender: socket.socket, destinations: list[tuple[str, int]], payload: bytes
    ) -> None:
        self.fd = sender.fileno()
        self.count = len(destinations)
        self.at = 0
        self.payload = ctypes.create_string_buffer(payload, len(payload))
        self.vector = IoVec(ctypes.addressof(self.payload), len(payload))
        self.names = [ctypes.create_string_buffer(sockaddr_in(each), 16) for each in destinations]
        self.messages = (MMsgHdr * self.count)()
        for message, name in zip(self.messages, self.names, strict=True):
            message.header.name = ctypes.addressof(name)
            message.header.name_length = 16
            message.header.iov = ctypes.pointer(self.vector)
            message.header.iov_length = 1

    def send(self, wanted: int) -> int:
        """Send up to `wanted` datagrams, not beyond the ring's end; how many went out."""
        wanted = min(wanted, self.count - self.at)
        offset = self.at * ctypes.sizeof(MMsgHdr)
        done = libc.sendmmsg(self.fd, ctypes.byref(self.messages, offset), wanted, MSG_DONTWAIT)
        if done < 0:
            error_unless_full()
            return 0
        self.at = (self.at + done) % self.count
        return int(done)


class Receiver:
    """Counts what arrives on many sockets; payloads all land in one buffer and are not kept."""

    def __init__(self, batch: int = 64) -> None:
        self.batch = batch
        self.buffer = ctypes.create_string_buffer(RECEIVE_BYTES)
        self.vector = IoVec(ctypes.addressof(self.buffer), RECEIVE_BYTES)
        self.messages = (MMsgHdr * batch)()
        for message in self.messages:
            message.header.iov = ctypes.pointer(self.vector)
            message.header.iov_length = 1

    def drain(self, fd: int) -> int:
        """Take everything that waits on the socket; how many datagrams that was."""
        total = 0
        while True:
            done = libc.recvmmsg(fd, self.messages, self.batch, MSG_DONTWAIT, None)
            if done < 0:
                error_unless_full()
                return total
            total += int(done)
            if done < self.batch:
                return total


def error_unless_full() -> None:
    """Raise the system call's error, but for "would block"."""
    code = ctypes.get_errno()
    if code not in (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.EINTR):
        raise OSError(code, os.strerror(code))
