"""A small TURN client over UDP for tests and the bench, written from the RFCs alone.

It shares no line with the relay, so that both would have to misread RFC 8489 and RFC 8656 in
the same way for a test to be fooled; it talks to any server (coturn, Mindmore). The functions
build and parse messages and touch no socket; `TurnClient` is one blocking UDP client.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType

MAGIC_COOKIE = b"\x21\x12\xa4\x42"
HEADER = struct.Struct("!HH4s12s")  # type, length, cookie, transaction
PAIR = struct.Struct("!HH")  # attribute type and length; channel number and length
UDP_PROTOCOL = b"\x11\x00\x00\x00"

Address = tuple[str, int]
# Addresses are XORed when the transaction is known.
Attributes = Sequence[tuple[int, bytes | Address]]


class Method(IntEnum):
    """STUN and TURN methods (RFC 8656 section 17)."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009
    CONNECT = 0x00A
    CONNECTION_BIND = 0x00B
    CONNECTION_ATTEMPT = 0x00C


class Kind(IntEnum):
    """The class bits of a message type (RFC 8489 section 5)."""

    REQUEST = 0x000
    INDICATION = 0x010
    SUCCESS = 0x100
    ERROR = 0x110


class Attribute(IntEnum):
    """Attribute types (RFC 8489 section 18.3, RFC 8656 section 18)."""

    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    DONT_FRAGMENT = 0x001A
    ACCESS_TOKEN = 0x001B
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    PASSWORD_ALGORITHM = 0x001D
    USERHASH = 0x001E
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    CONNECTION_ID = 0x002A
    ADDITIONAL_ADDRESS_FAMILY = 0x8000
    ADDRESS_ERROR_CODE = 0x8001
    PASSWORD_ALGORITHMS = 0x8002
    ICMP = 0x8004
    FINGERPRINT = 0x8028
    THIRD_PARTY_AUTHORIZATION = 0x802E
    MOBILITY_TICKET = 0x8030


@dataclass(frozen=True)
class Message:
    """One parsed STUN message; of a duplicated attribute the first counts.

    Attributes:
        all: every attribute in its order.
    """

    method: int
    kind: Kind
    transaction: bytes
    attributes: dict[int, bytes]
    all: tuple[tuple[int, bytes], ...] = ()

    def address(self, attribute: Attribute) -> Address:
        """An XOR-ed address attribute."""
        return address_decode(self.attributes[attribute], self.transaction)

    def addresses(self, attribute: Attribute) -> list[Address]:
        """Every address in attributes of this type."""
        return [
            address_decode(value, self.transaction) for kind, value in self.all if kind == attribute
        ]

    @property
    def error_code(self) -> int:
        """The number of an error answer, 0 where there is none."""
        value = self.attributes.get(Attribute.ERROR_CODE)
        return value[2] * 100 + value[3] if value else 0


class TurnError(Exception):
    """The server answered with an error, or not at all (code 0)."""

    def __init__(self, method: Method, code: int) -> None:
        super().__init__(f"{method.name}: {code or 'no answer'}")
        self.code = code


def address_encode(address: Address, transaction: bytes = b"") -> bytes:
    """XOR-MAPPED-ADDRESS form of an address (RFC 8489 section 14.2); IPv6 needs the transaction."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    host = xor(socket.inet_pton(family, address[0]), MAGIC_COOKIE + transaction)
    return struct.pack("!BBH", 0, len(host) // 8 or 1, address[1] ^ 0x2112) + host


def address_decode(value: bytes, transaction: bytes = b"") -> Address:
    """The address in an XOR-ed attribute."""
    _, number, port = struct.unpack_from("!BBH", value)
    family = {1: socket.AF_INET, 2: socket.AF_INET6}[number]
    return socket.inet_ntop(family, xor(value[4:], MAGIC_COOKIE + transaction)), port ^ 0x2112


def xor(value: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(value, mask[: len(value)], strict=True))


def attributes_encode(attributes: Attributes, transaction: bytes = b"") -> bytes:
    """Attributes with their padding to four bytes; addresses are XORed."""
    parts = []
    for kind, given in attributes:
        value = given if isinstance(given, bytes) else address_encode(given, transaction)
        parts += [PAIR.pack(kind, len(value)), value, b"\0" * (-len(value) % 4)]
    return b"".join(parts)


def message_encode(
    method: int,
    kind: Kind,
    attributes: Attributes = (),
    *,
    transaction: bytes | None = None,
    key: bytes | None = None,
    sha256: bool = False,
) -> bytes:
    """One message; with `key` it ends in MESSAGE-INTEGRITY, or in MESSAGE-INTEGRITY-SHA256."""
    transaction = transaction or secrets.token_bytes(12)
    body = attributes_encode(attributes, transaction)
    size, digest = (32, "sha256") if sha256 else (20, "sha1")
    length = len(body) + (4 + size if key else 0)
    plain = HEADER.pack(method | kind, length, MAGIC_COOKIE, transaction) + body
    if not key:
        return plain
    integrity = Attribute.MESSAGE_INTEGRITY_SHA256 if sha256 else Attribute.MESSAGE_INTEGRITY
    return plain + PAIR.pack(integrity, size) + hmac.digest(key, plain, digest)


def message_decode(datagram: bytes) -> Message:
    """Parse a message that a server sent; ValueError where it is none."""
    if len(datagram) < HEADER.size:
        raise ValueError("shorter than a STUN header")
    kind, length, cookie, transaction = HEADER.unpack_from(datagram)
    if kind & 0xC000 or cookie != MAGIC_COOKIE or length != len(datagram) - HEADER.size:
        raise ValueError("not a STUN message")
    attributes: dict[int, bytes] = {}
    found = tuple(attributes_decode(datagram[HEADER.size :]))
    for attribute, value in found:
        attributes.setdefault(attribute, value)
    return Message(kind & ~0x110, Kind(kind & 0x110), transaction, attributes, found)


def attributes_decode(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message's body, in order."""
    at = 0
    while at < len(body):
        attribute, length = PAIR.unpack_from(body, at)
        if at + 4 + length > len(body):
            raise ValueError("attribute beyond the message")
        yield attribute, body[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4


def channeldata_encode(channel: int, data: bytes) -> bytes:
    """A ChannelData message as it goes over UDP, without padding (RFC 8656 section 12.4)."""
    return PAIR.pack(channel, len(data)) + data


def long_term_key(username: str, realm: str, password: str, digest: str = "md5") -> bytes:
    """The key of the long-term credential mechanism (RFC 8489 section 9.2.2)."""
    return hashlib.new(digest, f"{username}:{realm}:{password}".encode()).digest()


def credentials_mint(secret: str, username: str) -> tuple[str, str]:
    """Username and password as a shared secret gives them (draft-uberti-behave-turn-rest)."""
    mac = hmac.digest(secret.encode(), username.encode(), "sha1")
    return username, base64.b64encode(mac).decode()


def allocate_attributes(lifetime_seconds: int | None = None) -> list[tuple[int, bytes]]:
    """What an Allocate for UDP over IPv4 says."""
    attributes: list[tuple[int, bytes]] = [(Attribute.REQUESTED_TRANSPORT, UDP_PROTOCOL)]
    if lifetime_seconds is not None:
        attributes.append((Attribute.LIFETIME, lifetime_seconds.to_bytes(4, "big")))
    return attributes


class TurnClient:
    """A blocking TURN client on one UDP socket.

    `sent` and `received` hold the size of each datagram, in bytes of UDP payload, so that a
    test can compare them with what the server counted. `icmp` holds ICMP errors about peers,
    `attempts` peers that have connected, with the connection's id.
    """

    sha256 = False  # whether requests carry MESSAGE-INTEGRITY-SHA256

    def __init__(
        self,
        server: Address,
        username: str = "",
        password: str = "",
        *,
        local: Address = ("", 0),
        timeout_seconds: float = 5.0,
    ) -> None:
        self.username = username
        self.password = password
        self.realm = b""
        self.nonce = b""
        self.key = b""
        self.sent: list[int] = []
        self.received: list[int] = []
        self.inbox: deque[tuple[Address | int, bytes]] = deque()
        self.icmp: list[tuple[Address, bytes]] = []
        self.attempts: list[tuple[Address, bytes]] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(timeout_seconds)
        self.socket.bind(local)
        self.socket.connect(server)
        self.local: Address = self.socket.getsockname()

    def __enter__(self) -> TurnClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def binding(self) -> Address:
        """Our address as the server sees it."""
        return self.exchange(Method.BINDING).address(Attribute.XOR_MAPPED_ADDRESS)

    def allocate(self, lifetime_seconds: int | None = None) -> Address:
        """Make an allocation; its relayed transport address."""
        answer = self.request(Method.ALLOCATE, allocate_attributes(lifetime_seconds))
        return answer.address(Attribute.XOR_RELAYED_ADDRESS)

    def refresh(self, lifetime_seconds: int) -> int:
        """Refresh the allocation (0 deletes it); the lifetime that the server gives."""
        attributes = [(Attribute.LIFETIME, lifetime_seconds.to_bytes(4, "big"))]
        answer = self.request(Method.REFRESH, attributes)
        return int.from_bytes(answer.attributes[Attribute.LIFETIME], "big")

    def permit(self, *peers: Address) -> None:
        """Install permissions for the peers' IP addresses."""
        attributes = [(Attribute.XOR_PEER_ADDRESS, peer) for peer in peers]
        self.request(Method.CREATE_PERMISSION, attributes)

    def bind(self, channel: int, peer: Address) -> None:
        """Bind a channel number to a peer."""
        attributes: Attributes = [
            (Attribute.CHANNEL_NUMBER, PAIR.pack(channel, 0)),
            (Attribute.XOR_PEER_ADDRESS, peer),
        ]
        self.request(Method.CHANNEL_BIND, attributes)

    def send(self, peer: Address, data: bytes) -> None:
        """Send data to a peer in a Send indication."""
        attributes: Attributes = [(Attribute.XOR_PEER_ADDRESS, peer), (Attribute.DATA, data)]
        self.transmit(message_encode(Method.SEND, Kind.INDICATION, attributes))

    def send_channel(self, channel: int, data: bytes) -> None:
        """Send data over a bound channel."""
        self.transmit(channeldata_encode(channel, data))

    def receive(self) -> tuple[Address | int, bytes]:
        """The next data from a peer: its address (Data indication) or channel, and the data."""
        while not self.inbox:
            datagram = self.datagram_receive()
            if datagram[0] & 0xC0 == 0:
                self.message_take(message_decode(datagram))
            else:
                self.channeldata_take(datagram)
        return self.inbox.popleft()

    def request(self, method: Method, attributes: Attributes) -> Message:
        """Ask with credentials; learns realm and nonce from a 401 or 438 first."""
        answer = self.exchange(method, self.signed(attributes), key=self.key)
        for _ in range(2):
            nonce = answer.attributes.get(Attribute.NONCE)
            if answer.error_code not in (401, 438) or nonce in (None, self.nonce):
                break
            self.challenge_take(answer)
            answer = self.exchange(method, self.signed(attributes), key=self.key)
        if answer.kind is not Kind.SUCCESS:
            raise TurnError(method, answer.error_code)
        return answer

    def signed(self, attributes: Attributes) -> Attributes:
        """The attributes, with credentials once the server has told its realm."""
        return [*attributes, *self.credential_attributes()] if self.key else attributes

    def credential_attributes(self) -> list[tuple[int, bytes]]:
        """Who asks, as the long-term credential mechanism says it."""
        return [
            (Attribute.USERNAME, self.username.encode()),
            (Attribute.REALM, self.realm),
            (Attribute.NONCE, self.nonce),
        ]

    def exchange(self, method: Method, attributes: Attributes = (), *, key: bytes = b"") -> Message:
        """Send a request and wait for its answer, whatever that is; sent again on silence."""
        transaction = secrets.token_bytes(12)
        datagram = message_encode(
            method,
            Kind.REQUEST,
            attributes,
            transaction=transaction,
            key=key,
            sha256=self.sha256,
        )
        for _ in range(3):
            self.transmit(datagram)
            try:
                return self.answer_wait(transaction)
            except TimeoutError:
                continue
        raise TurnError(method, 0)

    def answer_wait(self, transaction: bytes) -> Message:
        """The answer to one transaction; data that comes meanwhile waits in the inbox."""
        while True:
            datagram = self.datagram_receive()
            if datagram[0] & 0xC0:
                self.channeldata_take(datagram)
                continue
            message = message_decode(datagram)
            if message.transaction == transaction:
                return message
            self.message_take(message)

    def challenge_take(self, answer: Message) -> None:
        """Keep realm and nonce of a 401 or 438."""
        self.realm = answer.attributes.get(Attribute.REALM, self.realm)
        self.nonce = answer.attributes[Attribute.NONCE]
        self.key = long_term_key(self.username, self.realm.decode(), self.password)

    def channeldata_take(self, datagram: bytes) -> None:
        channel, length = PAIR.unpack_from(datagram)
        self.inbox.append((channel, datagram[4 : 4 + length]))

    def message_take(self, message: Message) -> None:
        if message.method == Method.DATA:
            peer = message.address(Attribute.XOR_PEER_ADDRESS)
            if Attribute.ICMP in message.attributes:
                self.icmp.append((peer, message.attributes[Attribute.ICMP]))
            else:
                self.inbox.append((peer, message.attributes[Attribute.DATA]))
        elif message.method == Method.CONNECTION_ATTEMPT:
            peer = message.address(Attribute.XOR_PEER_ADDRESS)
            self.attempts.append((peer, message.attributes[Attribute.CONNECTION_ID]))

    def transmit(self, datagram: bytes) -> None:
        self.socket.send(datagram)
        self.sent.append(len(datagram))

    def datagram_receive(self) -> bytes:
        datagram = self.socket.recv(65536)
        self.received.append(len(datagram))
        return datagram
