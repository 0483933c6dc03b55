"""Packet filters of the kernel: classic BPF, which needs no privilege."""

from __future__ import annotations

import contextlib
import ctypes
import socket
from struct import Struct, pack

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
SO_ATTACH_REUSEPORT_CBPF = 51
# <linux/bpf_common.h>, <linux/filter.h>
LOAD_WORD, LOAD_HALF, EQUAL, AT_LEAST, RETURN = 0x20, 0x28, 0x15, 0x35, 0x06
COPY, RETURN_A, SHIFT_RIGHT, MULTIPLY, MODULO = 0x07, 0x16, 0x74, 0x24, 0x94
XOR, XOR_COPY = 0xA4, 0xAC
NETWORK_HEADER = 0xFFF00000
RANDOM = 0xFFFFF000 + 56
SOURCE_ADDRESS = {4: 12, 16: 8}  # where it begins in the IP header
EVERYTHING = 0xFFFFFFFF
INSTRUCTION = Struct("=HBBI")  # code, jump if true, jump if false, operand


def filter_attach(
    endpoint: socket.SocketType, program: bytes, option: int = SO_ATTACH_FILTER
) -> None:
    """Let the kernel run a program for what comes to a socket."""
    instructions = ctypes.create_string_buffer(program, len(program))
    described = pack("HP", len(program) // INSTRUCTION.size, ctypes.addressof(instructions))
    endpoint.setsockopt(socket.SOL_SOCKET, option, described)


def filter_detach(endpoint: socket.SocketType) -> None:
    """Let everything pass again; nothing where no filter is attached."""
    with contextlib.suppress(FileNotFoundError):
        endpoint.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def nothing_passes() -> bytes:
    """The program that drops everything."""
    return INSTRUCTION.pack(RETURN, 0, 0, 0)
