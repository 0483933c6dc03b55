"""Everything that passes the loopback interface, and how much of it is whose payload.

Needs the right to look at packets: run it in a network namespace (`unshare --user --net`).

    IPv4 or IPv6 | UDP | payload                              counted as it is
    IPv4 or IPv6 | TCP | ...stream...                         put together by sequence numbers
                         | type | version | length | content  TLS 1.2, DTLS 1.2: of a record with
                                                              AES-GCM 24 bytes are not plaintext
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from tests.turn_client import Address

ETH_P_ALL = 3
ETH_P_IPV6 = 0x86DD
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
BUFFER_BYTES = 4 << 20  # the kernel gives what it allows
MARKER_PORT = 9
END = b"end"
PATIENCE_SECONDS = 20.0
APPLICATION_DATA = 23
TLS_HEADER = struct.Struct("!BHH")  # type, version, length
DTLS_HEADER = struct.Struct("!BH8xH")  # with epoch and sequence number
GCM_BYTES = 8 + 16  # explicit nonce, tag: of TLS 1.2 and DTLS 1.2


@dataclass(frozen=True)
class Packet:
    """One UDP datagram or TCP segment."""

    protocol: int
    source: Address
    destination: Address
    sequence: int
    payload: bytes


class Capture(threading.Thread):
    """Takes in packets until it is told to finish.

    The kernel drops what does not fit into its buffer, and says so: call `catch_up` every
    now and then.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.packets: list[Packet] = []
        self.caught_up = threading.Semaphore(0)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        # On loopback every packet passes twice: as it goes and as it comes.
        self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self.socket.bind(("lo", ETH_P_ALL))

    def run(self) -> None:
        while True:
            data, (_, kind, *_) = self.socket.recvfrom(1 << 17)
            packet = packet_decode(data, ipv6=kind == ETH_P_IPV6)
            if packet is None:
                continue
            if packet.destination[1] != MARKER_PORT:
                self.packets.append(packet)
                continue
            self.caught_up.release()
            if packet.payload == END:
                return

    def catch_up(self, marker: bytes = b"") -> None:
        """Wait until all that was sent before is taken in."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(marker, ("127.0.0.1", MARKER_PORT))
        assert self.caught_up.acquire(timeout=PATIENCE_SECONDS), "the capture has stopped"

    def finish(self) -> None:
        """End it; nothing may have been missed."""
        self.catch_up(END)
        self.join()
        statistics = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        _, missed = struct.unpack("II", statistics)
        assert missed == 0
        self.socket.close()

    def carried_bytes(self, transport: str, source: Address, destination: Address) -> int:
        """Bytes of payload from one address to another: what udp, tcp, tls or dtls carried."""
        if transport == "tcp":
            return len(self.stream(source, destination))
        if transport == "tls":
            return sum(plaintext_sizes(self.stream(source, destination), TLS_HEADER))
        payloads = self.payloads(socket.IPPROTO_UDP, source, destination)
        if transport == "udp":
            return sum(len(payload) for _, payload in payloads)
        return sum(
            size for _, payload in payloads for size in plaintext_sizes(payload, DTLS_HEADER)
        )

    def stream(self, source: Address, destination: Address) -> bytes:
        """What one end of a TCP connection has sent; what came twice counts once."""
        stream = bytearray()
        first = None
        for sequence, payload in self.payloads(socket.IPPROTO_TCP, source, destination):
            first = sequence if first is None else first
            position = (sequence - first) % (1 << 32)
            assert position <= len(stream), "a segment is missing"
            stream[position : position + len(payload)] = payload
        return bytes(stream)

    def payloads(
        self, protocol: int, source: Address, destination: Address
    ) -> Iterator[tuple[int, bytes]]:
        """Sequence number and payload of each packet that has any."""
        for packet in self.packets:
            place = packet.protocol, packet.source, packet.destination
            if packet.payload and place == (protocol, source, destination):
                yield packet.sequence, packet.payload


@contextmanager
def captured() -> Iterator[Capture]:
    """Everything from here to the end of the block."""
    capture = Capture()
    capture.start()
    yield capture
    capture.finish()


def packet_decode(data: bytes, *, ipv6: bool) -> Packet | None:
    """The datagram or segment in an IP packet; None for another protocol."""
    if ipv6:
        protocol, hosts, body = data[6], (data[8:24], data[24:40]), data[40:]
    else:
        header = (data[0] & 15) * 4
        (length,) = struct.unpack_from("!H", data, 2)
        protocol, hosts, body = data[9], (data[12:16], data[16:20]), data[header:length]
    if protocol not in (socket.IPPROTO_UDP, socket.IPPROTO_TCP):
        return None
    source, destination = (
        (str(ip_address(host)), port)
        for host, port in zip(hosts, struct.unpack_from("!HH", body), strict=True)
    )
    if protocol == socket.IPPROTO_UDP:
        return Packet(protocol, source, destination, 0, body[8:])
    (sequence,) = struct.unpack_from("!I", body, 4)
    return Packet(protocol, source, destination, sequence, body[(body[12] >> 4) * 4 :])


def plaintext_sizes(data: bytes, header: struct.Struct) -> Iterator[int]:
    """The plaintext of each record of application data, in bytes."""
    at = 0
    while at < len(data):
        kind, version, length = header.unpack_from(data, at)
        assert version in (0x0301, 0x0303, 0xFEFF, 0xFEFD), "not a record"
        at += header.size + length
        if kind == APPLICATION_DATA:
            yield length - GCM_BYTES
    assert at == len(data), "a record is cut short"
