"""Binding (RFC 8489 section 6), and what discovers the behaviour of NATs (RFC 5780).

Discovery needs two addresses with two ports each, and is off without them: its answers are larger,
and they go where the request says.

    primary:port ──▶ other:port, CHANGE-REQUEST "change IP"
         └─────────▶ primary:other port, "change port"

Over TCP a client is told the other address, to see how its NAT maps; an answer cannot come from
elsewhere than its connection. Over TLS there is none of it: TCP and TLS share their ports here, and
must not do so for discovery (RFC 5780 section 6).
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.core import attributes, stun
from relay.core.addresses import (
    SPOOFABLE_TRANSPORT,
    FiveTuple,
    SockAddress,
    address_encode,
    xor_address_encode,
)
from relay.core.effects import SendToClient
from relay.core.error_codes import BAD_REQUEST, UNKNOWN_ATTRIBUTE
from relay.core.integrity import IntegrityKey
from relay.core.settings import NatDiscovery
from relay.core.stun import StunMessage, error_code_encode

CHANGE_IP = 0x04  # RFC 5780 section 7.2
CHANGE_PORT = 0x02
DISCOVERY_TRANSPORTS = (SPOOFABLE_TRANSPORT, "tcp")
# An IP packet with PADDING stays within 64 KiB (section 7.6): it holds the headers of IPv6 and UDP,
# the STUN header, four IPv6 addresses, the header of PADDING, and a FINGERPRINT.
PADDING_LENGTH_MAX = 65535 - 40 - 8 - 20 - 4 * 24 - 4 - 8 & ~3


@dataclass(frozen=True, slots=True)
class Wish:
    """Where the answer of a Binding request is to come from and to go, and its padding in bytes."""

    origin: SockAddress
    client: SockAddress
    padding: int


class _WishError(Exception):
    """The request contradicts itself."""


def binding(
    message: StunMessage, five_tuple: FiveTuple, discovery: NatDiscovery | None
) -> SendToClient:
    """The answer to a Binding request."""
    if discovery is None or not discovery.serves(five_tuple.server):
        return _answer(message, five_tuple)
    if five_tuple.transport not in DISCOVERY_TRANSPORTS:
        return _answer(message, five_tuple)
    unknown = message.unknown_required(
        attributes.UNDERSTOOD_IN_DISCOVERY
        if five_tuple.transport == SPOOFABLE_TRANSPORT
        else attributes.UNDERSTOOD
    )
    if unknown:
        return unknown_attributes(message, five_tuple, unknown)
    try:
        wish = _wish(message, five_tuple, discovery)
    except _WishError:
        return error_answer(message, five_tuple, BAD_REQUEST, [], None)
    other = discovery.other(five_tuple.server)
    values = [
        (attributes.XOR_MAPPED_ADDRESS, _mapped(message, five_tuple)),
        (attributes.MAPPED_ADDRESS, address_encode(five_tuple.client)),
        (attributes.RESPONSE_ORIGIN, address_encode(wish.origin)),
        (attributes.OTHER_ADDRESS, address_encode(other)),
    ]
    if attributes.PADDING in message.values:
        values.append((attributes.PADDING, bytes(wish.padding)))
    target = FiveTuple(five_tuple.transport, wish.client, wish.origin)
    return SendToClient(target, stun.stun_answer(message, stun.SUCCESS, values, None))


def unknown_attributes(
    message: StunMessage,
    five_tuple: FiveTuple,
    unknown: list[int],
    key: IntegrityKey | None = None,
) -> SendToClient:
    """420, with the types that are not understood."""
    kinds = b"".join(kind.to_bytes(2, "big") for kind in unknown)
    values = [(attributes.UNKNOWN_ATTRIBUTES, kinds)]
    return error_answer(message, five_tuple, UNKNOWN_ATTRIBUTE, values, key)


def error_answer(
    message: StunMessage,
    five_tuple: FiveTuple,
    code: int,
    values: list[tuple[int, bytes]],
    key: IntegrityKey | None,
) -> SendToClient:
    """An error response; what it says of itself counts as nobody's bytes.

    The reason phrase is left out where the answer may reach somebody who never asked.
    """
    explained = key is not None or five_tuple.transport != SPOOFABLE_TRANSPORT
    values = [(attributes.ERROR_CODE, error_code_encode(code, explained=explained)), *values]
    return SendToClient(five_tuple, stun.stun_answer(message, stun.ERROR, values, key))


def _answer(message: StunMessage, five_tuple: FiveTuple) -> SendToClient:
    unknown = message.unknown_required()
    if unknown:
        return unknown_attributes(message, five_tuple, unknown)
    values = [(attributes.XOR_MAPPED_ADDRESS, _mapped(message, five_tuple))]
    return SendToClient(five_tuple, stun.stun_answer(message, stun.SUCCESS, values, None))


def _mapped(message: StunMessage, five_tuple: FiveTuple) -> bytes:
    return xor_address_encode(five_tuple.client, message.transaction_id)


def _wish(message: StunMessage, five_tuple: FiveTuple, discovery: NatDiscovery) -> Wish:
    change = message.values.get(attributes.CHANGE_REQUEST, bytes(4))
    port = message.values.get(attributes.RESPONSE_PORT)
    padding = message.values.get(attributes.PADDING)
    if len(change) != 4 or (port is not None and padding is not None):
        raise _WishError  # RFC 5780 sections 6.1 and 7.5
    host, client_port = five_tuple.client
    if port is not None:
        if len(port) not in (2, 4) or port[:2] == bytes(2):
            raise _WishError
        client_port = int.from_bytes(port[:2], "big")
    other = discovery.other(five_tuple.server)
    origin = (
        other[0] if change[3] & CHANGE_IP else five_tuple.server[0],
        other[1] if change[3] & CHANGE_PORT else five_tuple.server[1],
    )
    # As long as what was sent, not as the MTU: whoever really is at that address gets no more.
    length = min(len(padding or b"") + 3 & ~3, PADDING_LENGTH_MAX)
    return Wish(origin, (host, client_port), length)
