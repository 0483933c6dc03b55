"""What every method is given, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass

from relay.core import attributes, stun
from relay.core.addresses import FiveTuple, PeerAddress, xor_address_decode
from relay.core.allocation import Allocation
from relay.core.authentication import Accepted
from relay.core.effects import Authenticated, AuthenticationOutcome, Effect, SendToClient
from relay.core.error_codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    FORBIDDEN,
    PEER_ADDRESS_FAMILY_MISMATCH,
    WRONG_CREDENTIALS,
)
from relay.core.errors import MalformedMessageError
from relay.core.policy import is_tunnelled
from relay.core.stun import StunMessage
from relay.core.tables import AllocationTable

OWN_RELAYED_ADDRESS = "the relayed address of the same allocation"
TUNNELLED_CLIENT = "the client comes from an address of Teredo or 6to4"


class RequestRefusedError(Exception):
    """The request gets an error response with this code; `rule` is for who may ask why."""

    def __init__(self, code: int, rule: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.rule = rule


@dataclass(slots=True)  # not frozen, as effects are not
class Exchange:
    """One authenticated request, its length in bytes, and the allocation on its five-tuple."""

    message: StunMessage
    length: int
    five_tuple: FiveTuple
    user: Accepted
    allocation: Allocation | None
    now: float


def acceptance(exchange: Exchange) -> list[Effect]:
    """What the connection log is told of a request that was refused though its user was not.

    Of one that began an allocation `AllocationStarted` says as much.
    """
    if exchange.message.method != stun.ALLOCATE or exchange.allocation is not None:
        return []
    outcome = AuthenticationOutcome.ACCEPTED
    return [Authenticated(exchange.five_tuple, outcome, exchange.user.owner)]


def allocation_of(exchange: Exchange) -> Allocation:
    """The allocation that the request is about, which is the user's own."""
    if exchange.allocation is None:
        raise RequestRefusedError(ALLOCATION_MISMATCH)
    if exchange.allocation.username != exchange.user.username:
        raise RequestRefusedError(WRONG_CREDENTIALS)
    return exchange.allocation


def success(exchange: Exchange, values: list[tuple[int, bytes]]) -> SendToClient:
    """The success response."""
    datagram = stun.stun_answer(exchange.message, stun.SUCCESS, values, exchange.user.key)
    return SendToClient(exchange.five_tuple, datagram, exchange.allocation)


def family_read(exchange: Exchange, kind: int) -> int | None:
    """The family in one of the attributes that name one; None where it is absent."""
    value = exchange.message.values.get(kind)
    if value is None:
        return None
    if len(value) != 4:
        raise RequestRefusedError(BAD_REQUEST)
    return value[0]


def lifetime_read(table: AllocationTable, exchange: Exchange) -> int:
    """Seconds, clamped; the default where none was asked for. Zero stays zero."""
    settings = table.settings
    value = exchange.message.values.get(attributes.LIFETIME)
    if value is None:
        return settings.lifetime_seconds_default
    if len(value) != 4:
        raise RequestRefusedError(BAD_REQUEST)
    asked = int.from_bytes(value, "big")
    if asked == 0:
        return 0
    return min(max(asked, settings.lifetime_seconds_default), settings.lifetime_seconds_max)


def peer_read(value: bytes, message: StunMessage) -> PeerAddress:
    """An XOR-PEER-ADDRESS."""
    try:
        return xor_address_decode(value, message.transaction_id)
    except MalformedMessageError as error:
        raise RequestRefusedError(BAD_REQUEST) from error


def client_check(exchange: Exchange) -> None:
    """Refuse an allocation to whoever comes out of a tunnel (RFC 8656 section 21.4)."""
    if is_tunnelled(exchange.five_tuple.client[0]):
        raise RequestRefusedError(FORBIDDEN, TUNNELLED_CLIENT)


def family_check(allocation: Allocation, peer: PeerAddress) -> None:
    """Refuse a peer that no relayed address can reach."""
    if peer.family not in allocation.relayed:
        raise RequestRefusedError(PEER_ADDRESS_FAMILY_MISMATCH)


def peer_check(
    table: AllocationTable, allocation: Allocation, peer: PeerAddress, port: int | None
) -> None:
    """Refuse a peer of another family, whatever it is, and one that the policy forbids."""
    family_check(allocation, peer)
    refusal = table.policy.refusal(peer.packed, port)
    if refusal is not None:
        raise RequestRefusedError(FORBIDDEN, refusal.value)
    if port is not None and allocation.is_own(peer.sockaddr):
        raise RequestRefusedError(FORBIDDEN, OWN_RELAYED_ADDRESS)
