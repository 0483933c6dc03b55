"""io_uring(7), which Python does not have: the kernel carries out many orders with one call.

    entries      | order | order | ...       written here, carried out by `submit`
    completions  | token, result, flags | ...
    slots        | head, name, datagram .... | head, name, datagram .... | ...

A socket that is told once to receive keeps on (a "multishot"): the kernel puts every datagram into
the next slot, with who sent it, and says so in a completion. It does all of that within our own
calls (DEFER_TASKRUN), so nothing here has to be guarded against another processor. Slots are used
and given back in their order, so the ring that lists them is written once.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final

from relay.core.addresses import SockAddress, host_pack
from relay.core.allocation import Route
from relay.transports.batches import SLOT_BYTES, room_address

ENTRIES: Final = 256
ENTRIES_MASK: Final = ENTRIES - 1
COMPLETIONS: Final = 4096
SLOTS: Final = 128
SUBMIT_TRIES: Final = 3

# From <linux/io_uring.h>; the numbers of the calls are the same on every platform.
_SETUP_CALL, _ENTER_CALL, _REGISTER_CALL = 425, 426, 427
# CQSIZE, SUBMIT_ALL, TASKRUN_FLAG, SINGLE_ISSUER, DEFER_TASKRUN: the last of them since Linux 6.1.
_SETUP_FLAGS = 1 << 3 | 1 << 7 | 1 << 9 | 1 << 12 | 1 << 13
_SQ_WORK = 1 << 1 | 1 << 2  # CQ_OVERFLOW, TASKRUN
_ENTER_GETEVENTS = 1 << 0
_REGISTER_EVENTFD = 4
_REGISTER_PBUF_RING = 22
_OFFSET_SQ_RING = 0
_OFFSET_SQES = 0x10000000
_OP_RECVMSG, _OP_ASYNC_CANCEL, _OP_SEND = 10, 14, 26
_SQE_BUFFER_SELECT = 1 << 5
_SQE_CQE_SKIP_SUCCESS = 1 << 6
_RECV_MULTISHOT = 1 << 1
CQE_BUFFER: Final = 1 << 0  # flags of a completion: a slot was filled, its number is in the
CQE_MORE: Final = 1 << 1  # upper half; the socket keeps on receiving
CQE_FILLED: Final = CQE_BUFFER | CQE_MORE
CQE_SLOT_SHIFT: Final = 16

# struct io_uring_sqe: opcode, flags, ioprio, fd, addr2, addr, len, op flags, user_data, buf_group,
# personality, addr_len, and what is not used here.
_SQE = Struct("=BBHiQQIIQHHH18x")
SQE_BYTES: Final = _SQE.size
# Of an order to send: fd, addr2, addr, len, op flags, user_data; the rest stays as it is.
SEND: Final = Struct("=iQQIIQ")
_SEND_AT = 4
SEND_PLACES: Final = tuple(range(_SEND_AT, ENTRIES * SQE_BYTES, SQE_BYTES))  # in the orders
SEND_FLAGS: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_COMPLETION = Struct("=QiI")  # struct io_uring_cqe
_SLOT_ENTRY = Struct("=QIH2x")  # struct io_uring_buf
_SLOTS_TAIL_AT = 7  # in units of 2 bytes: the last of the first entry
_SLOTS_REGISTRATION = Struct("=QIHH24x")  # struct io_uring_buf_reg
_SLOTS_GROUP = 1
_MESSAGE_HEADER = Struct("@PIPNPNi4x")  # struct msghdr

_OURS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_U32 = 0xFFFFFFFF
_NAME_IPV4 = Struct("=H2s4s20x")  # struct sockaddr_in, and some more
_NAME_IPV6 = Struct("=H2s4x16s4x")  # struct sockaddr_in6
NAME_BYTES: Final = _NAME_IPV6.size
# A slot: struct io_uring_recvmsg_out, who sent the datagram (as long as was asked), the datagram.
SLOT_NAME_AT: Final = 16
NAME_LENGTHS: Final = (16, NAME_BYTES)
RECEIVES: Final = 1 << 63  # tokens from here on are those of sockets that receive


# With Python's lock held: no call here waits, and to let the lock go costs more than the call.
_system = ctypes.PyDLL(None, use_errno=True)
_setup, _enter, _register = _system["syscall"], _system["syscall"], _system["syscall"]
_setup.argtypes = ctypes.c_long, ctypes.c_uint, ctypes.c_void_p
_enter.argtypes = (
    *(ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint),
    *(ctypes.c_void_p, ctypes.c_size_t),
)
_register.argtypes = ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint
_setup.restype = _enter.restype = _register.restype = ctypes.c_long


class RingUnavailableError(Exception):
    """There is no io_uring for us; the message says why."""


# Token, result and flags. The result is a number of bytes, or an errno below zero.
Completion = tuple[int, int, int]


class Ring:
    """One io_uring, for the thread that made it.

    Who sends in great number packs SEND into `entries` himself, from `tail` on, and calls `submit`
    before there are more than ENTRIES.

    Attributes:
        entries: the orders; one to send is SEND at one of SEND_PLACES.
        tail: how many orders there have been; that modulo ENTRIES is which of these is next.
        events: a descriptor that becomes readable when `gather` has something; it is to be watched
            by its edges, as it is never read.
        slots: what was received lies here, SLOT_BYTES apart.
        slots_at: their address.

    Raises:
        RingUnavailableError: the kernel is older than Linux 6.1, or a sandbox forbids it.
    """

    def __init__(self) -> None:
        parameters = (ctypes.c_uint32 * 30)(ENTRIES, COMPLETIONS, _SETUP_FLAGS)
        self.events = -1
        self.entries = self._words = self._completions = memoryview(b"")
        self._descriptor = _setup(_SETUP_CALL, ENTRIES, parameters)
        try:
            _check(self._descriptor)
            self._map(parameters)
            self._slots_lend()
            self.events = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._register(_REGISTER_EVENTFD, Struct("=i").pack(self.events))
        except OSError as error:
            self.close()
            raise RingUnavailableError(error.strerror) from error
        self.tail = 0
        self._left = False
        self._waiting: list[Completion] = []
        self._headers = {
            length: ctypes.create_string_buffer(_MESSAGE_HEADER.pack(0, length, 0, 0, 0, 0, 0))
            for length in NAME_LENGTHS
        }
        for index in range(ENTRIES):
            self._template(index)

    def _map(self, parameters: ctypes.Array[ctypes.c_uint32]) -> None:
        """Map what is shared with the kernel, which has said where in it each thing lies."""
        _, tail, _, _, flags, _, array = parameters[10:17]
        head, completions_tail, _, _, _, completions = parameters[20:26]
        completions_end = completions + COMPLETIONS * _COMPLETION.size
        size = max(completions_end, array + 4 * ENTRIES)
        shared = memoryview(mmap.mmap(self._descriptor, size, offset=_OFFSET_SQ_RING))
        self._words = shared.cast("I")
        self._tail_at, self._flags_at = tail // 4, flags // 4
        self._completions_head, self._completions_tail = head // 4, completions_tail // 4
        self._completions = shared[completions:completions_end]
        for index in range(ENTRIES):
            self._words[array // 4 + index] = index
        orders = mmap.mmap(self._descriptor, ENTRIES * SQE_BYTES, offset=_OFFSET_SQES)
        self.entries = memoryview(orders)

    def _slots_lend(self) -> None:
        self.slots = mmap.mmap(-1, SLOTS * SLOT_BYTES, _OURS)
        self.slots_at = room_address(self.slots)
        lent = mmap.mmap(-1, SLOTS * _SLOT_ENTRY.size, _OURS)
        for index in range(SLOTS):
            at = self.slots_at + SLOT_BYTES * index
            _SLOT_ENTRY.pack_into(lent, _SLOT_ENTRY.size * index, at, SLOT_BYTES, index)
        self._lent = memoryview(lent).cast("H")
        self._lent[_SLOTS_TAIL_AT] = SLOTS
        self._register(
            _REGISTER_PBUF_RING,
            _SLOTS_REGISTRATION.pack(room_address(lent), SLOTS, _SLOTS_GROUP, 0),
        )

    def _register(self, what: int, value: bytes) -> None:
        room = ctypes.create_string_buffer(value, len(value))
        _check(_register(_REGISTER_CALL, self._descriptor, what, room, 1))

    def _template(self, index: int) -> None:
        """What is the same in every order to send."""
        _SQE.pack_into(
            self.entries,
            SQE_BYTES * index,
            *(_OP_SEND, _SQE_CQE_SKIP_SUCCESS, 0, -1, 0, 0, 0, 0, 0, 0, 0, NAME_BYTES),
        )

    def close(self) -> None:
        """Let it go; no socket receives any more."""
        for view in (self.entries, self._words, self._completions):
            view.release()
        for descriptor in (self._descriptor, self.events):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self.events = -1

    # --- orders -----------------------------------------------------------------------------------

    def receive_from(self, endpoint: int, token: int, name_length: int) -> bool:
        """Have a UDP socket receive from now on.

        Args:
            endpoint: its descriptor.
            token: what completions name it by, RECEIVES or more.
            name_length: one of NAME_LENGTHS, by its family.

        Returns:
            Whether it does: not where there is no slot left; `gather` says so too.
        """
        header = ctypes.addressof(self._headers[name_length])
        self._order(
            *(_OP_RECVMSG, _SQE_BUFFER_SELECT, _RECV_MULTISHOT, endpoint, 0, header, 1),
            *(0, token, _SLOTS_GROUP, 0, 0),
        )
        last = self._waiting[-1] if self._waiting else (0, 0, 0)
        return last[0] != token or last[2] & CQE_BUFFER != 0

    def receive_end(self, token: int) -> None:
        """Have a socket receive no more.

        Where it is closed already the kernel lets it go: at once, or with a later `gather` where
        many others have something.
        """
        self._order(_OP_ASYNC_CANCEL, _SQE_CQE_SKIP_SUCCESS, 0, -1, 0, token, 0, 0, 0, 0, 0, 0)
        _enter(_ENTER_CALL, self._descriptor, 0, 0, _ENTER_GETEVENTS, None, 0)

    def _order(self, *values: int) -> None:
        index = self.tail & ENTRIES_MASK
        _SQE.pack_into(self.entries, SQE_BYTES * index, *values)
        self.submit(1)
        self._template(index)

    def submit(self, count: int) -> Sequence[Completion]:
        """Have the kernel carry out so many orders from `tail` on.

        Returns:
            Those that failed.
        """
        self.tail += count
        words = self._words
        words[self._tail_at] = self.tail & _U32
        done = _enter(_ENTER_CALL, self._descriptor, count, 0, 0, None, 0)
        if done == count and words[self._completions_tail] == words[self._completions_head]:
            return ()
        completions = [*self._submit_again(count - max(done, 0)), *self._take()]
        self._waiting += [each for each in completions if each[0] >= RECEIVES]
        return [each for each in completions if each[0] < RECEIVES]

    def _submit_again(self, left: int) -> list[Completion]:
        """The kernel has left some undone, for want of memory: once more, or give them up."""
        for _ in range(SUBMIT_TRIES):
            if not left:
                break
            done = _enter(_ENTER_CALL, self._descriptor, left, 0, 0, None, 0)
            left -= max(done, 0)
        numbers = range(self.tail - left, self.tail)
        self.tail -= left
        self._words[self._tail_at] = self.tail & _U32
        if left:
            self.wake()
        places = [SEND_PLACES[number & ENTRIES_MASK] for number in numbers]
        return [(SEND.unpack_from(self.entries, at)[-1], -errno.ENOMEM, 0) for at in places]

    # --- completions ------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether `gather` would find something."""
        words = self._words
        return bool(
            words[self._flags_at] & _SQ_WORK
            or words[self._completions_tail] != words[self._completions_head]
            or self._waiting
        )

    @property
    def has_left(self) -> bool:
        """Whether `gather` has left something, which `events` does not tell again."""
        return self._left or bool(self._waiting)

    def wake(self) -> None:
        """Make `events` readable."""
        os.eventfd_write(self.events, 1)

    def gather(self) -> Iterator[Completion]:
        """What sockets have received; each completion with CQE_BUFFER has a slot.

        The slots are ours until `slots_return`.
        """
        _enter(_ENTER_CALL, self._descriptor, 0, 0, _ENTER_GETEVENTS, None, 0)
        self._left = self._words[self._flags_at] & _SQ_WORK != 0
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            return iter((*waiting, *self._take()))
        return self._take()

    def slots_return(self, count: int) -> None:
        """Give back the slots of so many completions, which were the next in their order."""
        self._lent[_SLOTS_TAIL_AT] = (self._lent[_SLOTS_TAIL_AT] + count) & 0xFFFF

    def _take(self) -> Iterator[Completion]:
        words = self._words
        head, tail = words[self._completions_head], words[self._completions_tail]
        begin, count = head % COMPLETIONS, (tail - head) & _U32
        words[self._completions_head] = tail
        size, end = _COMPLETION.size, begin + count
        found = self._completions[size * begin : size * end]
        if end > COMPLETIONS:  # it goes on at the front
            return _COMPLETION.iter_unpack(
                bytes(found) + self._completions[: size * (end - COMPLETIONS)]
            )
        return _COMPLETION.iter_unpack(found)


def route_make(endpoint: int, address: SockAddress) -> Route:
    """How an order names the socket to send from and whom to send to."""
    host, port = address
    packed = host_pack(host)
    if len(packed) == 4:
        name = _NAME_IPV4.pack(socket.AF_INET, port.to_bytes(2, "big"), packed)
    else:
        name = _NAME_IPV6.pack(socket.AF_INET6, port.to_bytes(2, "big"), packed)
    room = ctypes.create_string_buffer(name, NAME_BYTES)
    return Route(endpoint, ctypes.addressof(room), room)


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
