"""Ten thousand clients at one UDP socket: each has an address of its own in 127/8.

    member i ── 127.x.y.1, one port for all ──▶ relay ── relayed address i ──▶ the peer's socket

Every address of 127/8 is this machine's, and IP_PKTINFO says for each datagram which of them it
leaves from and came to. No two members share a /24, so that no limit of a network takes them for
one. Requests are asked in a window and asked again on silence, as clients do.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from itertools import islice

from tests.turn_client import (
    PAIR,
    Address,
    Attribute,
    Attributes,
    Kind,
    Message,
    Method,
    allocate_attributes,
    channeldata_encode,
    long_term_key,
    message_decode,
    message_encode,
)

IP_PKTINFO = 8  # from <linux/in.h>; the module `socket` lacks it
PACKET_INFO = struct.Struct("=i4s4s")  # interface, source to use, destination in the header
NETWORKS_FIRST = 64 << 8  # 127.64.0.0/24
BUFFER_BYTES = 4 << 20
WINDOW = 48
CHANNEL = 0x4000
RESEND_SECONDS = 0.5  # RFC 8489 section 6.2.1
PATIENCE_SECONDS = 60.0
LIFETIME_SECONDS = 3600
PAYLOAD_BYTES = len(b"packet of %6d" % 0)


class Member:
    """One client of the crowd."""

    __slots__ = ("ancillary", "key", "nonce", "number", "relayed", "username")

    def __init__(self, number: int, username: str) -> None:
        self.number = number
        self.username = username
        host = bytes((127, *(NETWORKS_FIRST + number).to_bytes(2, "big"), 1))
        info = PACKET_INFO.pack(0, host, bytes(4))
        self.ancillary = [(socket.IPPROTO_IP, IP_PKTINFO, info)]
        self.nonce = b""
        self.key = b""
        self.relayed: Address = ("", 0)


class Crowd:
    """Clients that all do the same thing, one thing at a time.

    Attributes:
        resent: requests and data that were sent again.
    """

    def __init__(
        self,
        server: Address,
        credential: Callable[[int], tuple[str, str]],
        count: int,
        *,
        first: int = 0,
    ) -> None:
        self.server = server
        self.resent = 0
        self._passwords = {}
        self._realm = b""
        self.members = []
        for number in range(first, first + count):
            username, password = credential(number)
            self._passwords[username] = password
            self.members.append(Member(number, username))
        self._first = first
        self.socket = self._socket()
        self.socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.socket.bind(("0.0.0.0", 0))
        self.peer = self._socket()
        self.peer.bind(("127.0.0.3", 0))

    @staticmethod
    def _socket() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        return made

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.peer.close()

    # --- what they do -----------------------------------------------------------------------------

    def allocate(self, *, reserve: bool = False) -> None:
        """Each makes an allocation, challenged first; with `reserve` the next port is kept too."""
        asking = allocate_attributes(LIFETIME_SECONDS)
        if reserve:
            asking.append((Attribute.EVEN_PORT, b"\x80"))
        for member in self.members:
            member.key = b""
        for member, answer in self._ask(Method.ALLOCATE, lambda _: asking):
            self._realm = answer.attributes[Attribute.REALM]
            member.nonce = answer.attributes[Attribute.NONCE]
        keys = {
            username: long_term_key(username, self._realm.decode(), password)
            for username, password in self._passwords.items()
        }
        for member in self.members:
            member.key = keys[member.username]
        for member, answer in self._asked_well(Method.ALLOCATE, lambda _: asking):
            member.relayed = answer.address(Attribute.XOR_RELAYED_ADDRESS)

    def bind(self) -> None:
        """Each binds a channel to the one peer."""
        peer = self.peer.getsockname()
        self._asked_well(
            Method.CHANNEL_BIND,
            lambda _: [
                (Attribute.CHANNEL_NUMBER, PAIR.pack(CHANNEL, 0)),
                (Attribute.XOR_PEER_ADDRESS, peer),
            ],
        )

    def permit(self) -> None:
        """Each installs a permission for the one peer."""
        peer = self.peer.getsockname()
        self._asked_well(Method.CREATE_PERMISSION, lambda _: [(Attribute.XOR_PEER_ADDRESS, peer)])

    def refresh(self, lifetime_seconds: int = LIFETIME_SECONDS) -> None:
        """Each refreshes its allocation; 0 deletes it."""
        value = lifetime_seconds.to_bytes(4, "big")
        self._asked_well(Method.REFRESH, lambda _: [(Attribute.LIFETIME, value)])

    def codes_of_refresh(self) -> list[int]:
        """The error code that each gets for a Refresh; 0 where its allocation lives."""
        value = LIFETIME_SECONDS.to_bytes(4, "big")
        answers = self._ask(Method.REFRESH, lambda _: [(Attribute.LIFETIME, value)])
        return [answer.error_code for _, answer in answers]

    def relay(self) -> None:
        """Each sends the peer a packet of its own, and gets it back."""
        expected = {member.relayed: member for member in self.members}
        data = {member: b"packet of %6d" % member.number for member in self.members}
        back: set[Member] = set()

        def take() -> list[Member]:
            for payload, relayed in self._drain_peer():
                if payload == data[expected[relayed]]:
                    self.peer.sendto(payload, relayed)
            done = []
            for datagram, member in self._drain():
                if datagram == channeldata_encode(CHANNEL, data[member]):
                    back.add(member)
                    done.append(member)
            return done

        self._window(
            lambda member: channeldata_encode(CHANNEL, data[member]), take, self.peer.fileno()
        )
        assert len(back) == len(self.members)

    # --- how --------------------------------------------------------------------------------------

    def _asked_well(
        self, method: Method, attributes: Callable[[Member], Attributes]
    ) -> list[tuple[Member, Message]]:
        answers = self._ask(method, attributes)
        codes = {answer.error_code for _, answer in answers}
        assert codes == {0}, f"{method.name}: {codes}"
        return answers

    def _ask(
        self, method: Method, attributes: Callable[[Member], Attributes]
    ) -> list[tuple[Member, Message]]:
        """The answer of each, whatever it is."""
        answers: dict[Member, Message] = {}
        transactions: dict[Member, bytes] = {}
        stamp = time.monotonic_ns().to_bytes(8, "big")

        def request(member: Member) -> bytes:
            transactions[member] = stamp + member.number.to_bytes(4, "big")
            said = list(attributes(member))
            if member.key:
                said += [
                    (Attribute.USERNAME, member.username.encode()),
                    (Attribute.REALM, self._realm),
                    (Attribute.NONCE, member.nonce),
                ]
            return message_encode(
                method,
                Kind.REQUEST,
                said,
                transaction=transactions[member],
                key=member.key or None,
            )

        def take() -> list[Member]:
            done = []
            for datagram, member in self._drain():
                if datagram[8:20] == transactions.get(member):
                    answers[member] = message_decode(datagram)
                    done.append(member)
            return done

        self._window(request, take)
        assert len(answers) == len(self.members)
        return list(answers.items())

    def _window(
        self,
        encode: Callable[[Member], bytes],
        take: Callable[[], Iterable[Member]],
        *descriptors: int,
    ) -> None:
        """Send what each has to say, a few at a time, until all are done."""
        waiting = iter(self.members)
        pending: dict[Member, tuple[float, bytes]] = {}
        deadline = time.monotonic() + PATIENCE_SECONDS
        poll = select.poll()
        for descriptor in (self.socket.fileno(), *descriptors):
            poll.register(descriptor, select.POLLIN)
        while True:
            now = time.monotonic()
            assert now < deadline, f"{len(pending)} of the crowd wait for an answer"
            for member in islice(waiting, WINDOW - len(pending)):
                pending[member] = now, encode(member)
                self._send(member, pending[member][1])
            if not pending:
                return
            poll.poll(100)
            for member in take():
                pending.pop(member, None)
            for member, (sent_at, datagram) in list(pending.items())[:8]:  # the oldest
                if now - sent_at > RESEND_SECONDS:
                    self.resent += 1
                    pending[member] = now, datagram
                    self._send(member, datagram)

    def _send(self, member: Member, datagram: bytes) -> None:
        self.socket.sendmsg([datagram], member.ancillary, 0, self.server)

    def _drain(self) -> Iterable[tuple[bytes, Member]]:
        """What has come, and for whom."""
        while True:
            try:
                datagram, ancillary, _, _ = self.socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            network = int.from_bytes(ancillary[0][2][9:11], "big") - NETWORKS_FIRST
            yield datagram, self.members[network - self._first]

    def _drain_peer(self) -> Iterable[tuple[bytes, Address]]:
        while True:
            try:
                yield self.peer.recvfrom(2048)
            except BlockingIOError:
                return
