"""Makes libwebrtc trust the certificate of a test.

It verifies `turns:` servers against authorities that are compiled into it, and has no way to add
one: neither the environment, nor a file, nor an option of its Python package. So the certificate
is written over one of those, in this process's memory only. Verification itself stays as it is.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import wrtc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

LIBRARY = Path(wrtc.__file__).resolve()
# A certificate: SEQUENCE { SEQUENCE { [0] { INTEGER 2 }, INTEGER ..., each length in two bytes.
CERTIFICATE = re.compile(rb"\x30\x82(..)\x30\x82..\xa0\x03\x02\x01\x02\x02", re.DOTALL)


def libwebrtc_trust(certificate: Path) -> None:
    """Trust a PEM certificate in the place of the first authority; a second one replaces it."""
    ours = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    offset = place_of_the_first_authority(LIBRARY.read_bytes(), len(ours))
    address = mapped_at(offset)
    page = address & -mmap.PAGESIZE
    length = address + len(ours) - page
    libc = ctypes.CDLL(None, use_errno=True)
    for protection in (mmap.PROT_READ | mmap.PROT_WRITE, mmap.PROT_READ):
        changed = libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(length), protection)
        assert changed == 0, os.strerror(ctypes.get_errno())
        if protection & mmap.PROT_WRITE:
            ctypes.memmove(address, ours, len(ours))


def place_of_the_first_authority(library: bytes, length_min: int) -> int:
    """Where in the file one stands that is long enough; it may be longer than its content."""
    for found in CERTIFICATE.finditer(library):
        length = 4 + int.from_bytes(found[1], "big")
        if length >= length_min:
            x509.load_der_x509_certificate(library[found.start() : found.start() + length])
            return found.start()
    raise AssertionError("libwebrtc holds no authority")


def mapped_at(offset: int) -> int:
    """Where in memory that place of the library is."""
    for start, end, file_offset in mappings():
        if file_offset <= offset < file_offset + end - start:
            return start + offset - file_offset
    raise AssertionError("libwebrtc is not loaded")


def mappings() -> Iterator[tuple[int, int, int]]:
    """Where the library is in memory: start, end, and the offset in the file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, offset, *_, path = line.split()
        if path == str(LIBRARY):
            start, end = (int(each, 16) for each in addresses.split("-"))
            yield start, end, int(offset, 16)
