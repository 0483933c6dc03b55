"""A tap between clients and a TURN server: passes every datagram on, and keeps its size.

What it counts is what the clients themselves sent and got, whatever the server says about it.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.turn_client import Address, Attribute, Kind, Message, Method, message_decode

HOST = "127.0.0.1"
TICK_SECONDS = 0.05


@dataclass
class Flow:
    """The datagrams of one client, in order: whether from the client, and the bytes."""

    client: Address
    socket: socket.socket
    port: int  # from which the server sees this client
    datagrams: list[tuple[bool, bytes]] = field(default_factory=list)

    def payable(self) -> tuple[int, int]:
        """See `payable_bytes`."""
        return payable_bytes(self.datagrams)

    def messages(self) -> list[Message]:
        """The STUN messages, in order."""
        found = (each for _, each in self.datagrams if not is_channeldata(each))
        return [message_decode(each) for each in found]


def payable_bytes(datagrams: Sequence[tuple[bool, bytes]]) -> tuple[int, int]:
    """Bytes from and to the client that belong to an allocation.

    Data in either form, requests that succeeded and the answers to them; not what came before
    authentication, was refused, or was only a Binding request. The end of an allocation counts
    once, however often the client asks for it.

    Args:
        datagrams: whether from the client, and the bytes of one message.
    """
    messages = [
        None if is_channeldata(datagram) else message_decode(datagram) for _, datagram in datagrams
    ]
    succeeded = {
        message.transaction
        for message in messages
        if message and message.kind is Kind.SUCCESS and message.method != Method.BINDING
    }
    sent = received = 0
    ends: set[tuple[bool, bytes]] = set()
    for (from_client, datagram), message in zip(datagrams, messages, strict=True):
        if message is not None:
            if not belongs(message, succeeded) or (from_client, message.transaction) in ends:
                continue
            if message.method == Method.REFRESH and is_end(message):
                ends.add((from_client, message.transaction))
        sent += len(datagram) * from_client
        received += len(datagram) * (not from_client)
    return sent, received


def is_channeldata(datagram: bytes) -> bool:
    """Whether the first two bits say so (RFC 8656 section 12)."""
    return datagram[0] & 0xC0 == 0x40


def belongs(message: Message, succeeded: set[bytes]) -> bool:
    """Whether a STUN message carries data, or is part of a request that succeeded."""
    if message.kind is Kind.INDICATION:
        return message.method in (Method.SEND, Method.DATA, Method.CONNECTION_ATTEMPT)
    return message.transaction in succeeded and message.kind is not Kind.ERROR


def is_end(message: Message) -> bool:
    """Whether a Refresh, or the answer to one, says that the allocation ends."""
    return message.attributes.get(Attribute.LIFETIME) == bytes(4)


class Tap(threading.Thread):
    """Listens on `port`; passes on to `server` and back."""

    def __init__(self, server: Address) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.flows: dict[Address, Flow] = {}
        self.ended = threading.Event()
        self.socket = self.socket_open()
        self.port: int = self.socket.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.socket, selectors.EVENT_READ)

    def socket_open(self) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((HOST, 0))
        return opened

    def run(self) -> None:
        while not self.ended.is_set():
            for key, _ in self.selector.select(TICK_SECONDS):
                if key.data is None:
                    self.from_client()
                else:
                    self.from_server(key.data)
        self.selector.close()
        self.socket.close()
        for flow in self.flows.values():
            flow.socket.close()

    def from_client(self) -> None:
        datagram, client = self.socket.recvfrom(65536)
        if client not in self.flows:
            to_server = self.socket_open()
            flow = Flow(client, to_server, to_server.getsockname()[1])
            self.selector.register(flow.socket, selectors.EVENT_READ, flow)
            self.flows[client] = flow
        self.flows[client].datagrams.append((True, datagram))
        self.flows[client].socket.sendto(datagram, self.server)

    def from_server(self, flow: Flow) -> None:
        datagram = flow.socket.recv(65536)
        flow.datagrams.append((False, datagram))
        self.socket.sendto(datagram, flow.client)


@contextmanager
def tapped(server: Address) -> Iterator[Tap]:
    """A tap in front of the server; ends when the server has, so that nothing is missed."""
    tap = Tap(server)
    tap.start()
    try:
        yield tap
    finally:
        tap.ended.set()
        tap.join()
