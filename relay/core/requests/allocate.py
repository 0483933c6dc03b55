"""Allocate (RFC 8656 section 7.2): from the request to the ports that are to be opened."""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.core import attributes
from relay.core.addresses import FAMILY_IPV4, FAMILY_IPV6, SockAddress
from relay.core.allocation import TCP_PROTOCOL, UDP_PROTOCOL, Allocation, RelayedAddress
from relay.core.effects import SendToClient
from relay.core.error_codes import (
    ADDRESS_FAMILY_NOT_SUPPORTED,
    ALLOCATION_MISMATCH,
    ALLOCATION_QUOTA_REACHED,
    BAD_REQUEST,
    INSUFFICIENT_CAPACITY,
    UNSUPPORTED_TRANSPORT,
)
from relay.core.requests.exchange import (
    Exchange,
    RequestRefusedError,
    client_check,
    family_read,
    lifetime_read,
)
from relay.core.requests.mobility import mobility_is_asked
from relay.core.tables import AllocationTable, CapacityError

EVEN_PORT_RESERVE = 0x80
# RFC 6062 section 5.1
NOT_WITH_TCP = attributes.DONT_FRAGMENT, attributes.EVEN_PORT, attributes.RESERVATION_TOKEN
FAMILY_OR_PORT = frozenset(
    {
        attributes.REQUESTED_ADDRESS_FAMILY,
        attributes.ADDITIONAL_ADDRESS_FAMILY,
        attributes.ADDITIONAL_ADDRESS_FAMILY_OLD,
        attributes.EVEN_PORT,
        attributes.RESERVATION_TOKEN,
    }
)
RELAYED_PORT_TRIES = 8


@dataclass(slots=True)
class Opening:
    """An allocation that waits for its relayed sockets.

    Attributes:
        exchange: the Allocate request.
        expires_at: when the allocation will end.
        waiting: addresses that are not open yet, the next one first.
        reserved: the address that is taken with it to be reserved, if any.
        failed: families of a dual allocation that cannot be had, and why.
        fault: what the operator is told where none can be had; empty where no port was left.
        tries_left: ports that may be tried for the next address.
    """

    allocation: Allocation
    exchange: Exchange
    expires_at: float
    waiting: list[RelayedAddress] = field(default_factory=list)
    reserved: SockAddress | None = None
    failed: dict[int, int] = field(default_factory=dict)
    fault: str = ""
    tries_left: int = RELAYED_PORT_TRIES


def retransmitted_allocate(exchange: Exchange) -> SendToClient | None:
    """The answer to a retransmission; None where there is no allocation on the five-tuple."""
    live = exchange.allocation
    if live is None:
        return None
    if live.transaction_id != exchange.message.transaction_id:
        raise RequestRefusedError(ALLOCATION_MISMATCH)
    return SendToClient(live.five_tuple, live.answer, live)


def allocate(table: AllocationTable, exchange: Exchange) -> Opening:
    """Hold a new allocation and take its ports; nothing of it stays where it is refused."""
    client_check(exchange)
    for reason in table.closed_because:
        raise RequestRefusedError(INSUFFICIENT_CAPACITY, reason)
    protocol = _protocol(table, exchange)
    families = _families(table, exchange)
    mobile = mobility_is_asked(table, exchange, protocol)
    lifetime = lifetime_read(table, exchange) or table.settings.lifetime_seconds_default
    allocation = table.create(
        five_tuple=exchange.five_tuple,
        user=exchange.user,
        transaction_id=exchange.message.transaction_id,
    )
    quota = table.entitlements.hold(allocation, exchange.now)
    if quota is not None:
        raise RequestRefusedError(ALLOCATION_QUOTA_REACHED, quota)
    allocation.protocol = protocol
    opening = Opening(allocation, exchange, exchange.now + lifetime)
    for family in families:
        _port_take_if_any(table, opening, family)
    if not opening.waiting:
        table.entitlements.release(allocation)
        raise RequestRefusedError(INSUFFICIENT_CAPACITY)
    if mobile:
        allocation.tickets = range(1, 2)
    allocation.client_received_bytes = exchange.length
    return opening


def _protocol(table: AllocationTable, exchange: Exchange) -> int:
    """What is to be spoken with peers."""
    values = exchange.message.values
    requested = values.get(attributes.REQUESTED_TRANSPORT)
    if requested is None or len(requested) != 4:
        raise RequestRefusedError(BAD_REQUEST)
    protocol = requested[0]
    if protocol == UDP_PROTOCOL:
        return protocol
    # Bytes of a stream have no first byte that a project could ask for to be media.
    limits = table.entitlements.project_limits(exchange.user.owner)
    if protocol != TCP_PROTOCOL or not table.settings.tcp_relay or limits.media_only:
        raise RequestRefusedError(UNSUPPORTED_TRANSPORT)
    if not exchange.five_tuple.is_stream or any(kind in values for kind in NOT_WITH_TCP):
        raise RequestRefusedError(BAD_REQUEST)
    return protocol


def _families(table: AllocationTable, exchange: Exchange) -> list[int]:
    """The families that are asked for, in the order in which they are opened."""
    values = exchange.message.values
    if values.keys().isdisjoint(FAMILY_OR_PORT) and FAMILY_IPV4 in table.relay_hosts:
        return [FAMILY_IPV4]  # nearly always
    requested = family_read(exchange, attributes.REQUESTED_ADDRESS_FAMILY)
    additional = _additional_family(exchange)
    even_port = values.get(attributes.EVEN_PORT)
    if even_port is not None and len(even_port) != 1:
        raise RequestRefusedError(BAD_REQUEST)
    if attributes.RESERVATION_TOKEN in values and (
        even_port is not None or requested is not None or additional is not None
    ):
        raise RequestRefusedError(BAD_REQUEST)
    if additional is not None:
        reserve = even_port is not None and even_port[0] & EVEN_PORT_RESERVE
        if requested is not None or additional != FAMILY_IPV6 or reserve:
            raise RequestRefusedError(BAD_REQUEST)
        return [FAMILY_IPV4, FAMILY_IPV6]
    family = FAMILY_IPV4 if requested is None else requested
    if family not in table.relay_hosts and attributes.RESERVATION_TOKEN not in values:
        raise RequestRefusedError(ADDRESS_FAMILY_NOT_SUPPORTED)
    return [family]


def _additional_family(exchange: Exchange) -> int | None:
    found = family_read(exchange, attributes.ADDITIONAL_ADDRESS_FAMILY)
    if found is None:
        return family_read(exchange, attributes.ADDITIONAL_ADDRESS_FAMILY_OLD)
    return found


def _port_take_if_any(table: AllocationTable, opening: Opening, family: int) -> None:
    """One half of a dual allocation may fail: the other half does without it."""
    values = opening.exchange.message.values
    if family not in table.relay_hosts and attributes.RESERVATION_TOKEN not in values:
        opening.failed[family] = ADDRESS_FAMILY_NOT_SUPPORTED
        return
    try:
        opening.waiting.append(_port_take(table, opening, family))
    except CapacityError:
        opening.failed[family] = INSUFFICIENT_CAPACITY


def _port_take(table: AllocationTable, opening: Opening, family: int) -> RelayedAddress:
    values, ends = opening.exchange.message.values, opening.expires_at
    token = values.get(attributes.RESERVATION_TOKEN)
    even_port = values.get(attributes.EVEN_PORT)
    if token is not None:
        return table.port_take_reserved(token, ends, opening.exchange.now)
    if even_port is None:
        return table.port_take(family, ends)
    if not even_port[0] & EVEN_PORT_RESERVE:
        return table.port_take_even(family, ends)
    relayed, opening.reserved = table.port_take_even_pair(family, ends)
    return relayed


def port_give_back(table: AllocationTable, opening: Opening) -> None:
    """Give back the port that could not be opened, and the one taken with it."""
    table.port_release(opening.waiting.pop(0).sockaddr)
    if opening.reserved is not None:
        table.port_release(opening.reserved)
        opening.reserved = None


def another_port_take(table: AllocationTable, opening: Opening, family: int) -> bool:
    """Take another port like the one that could not be opened, while tries are left."""
    opening.tries_left -= 1
    if not opening.tries_left or attributes.RESERVATION_TOKEN in opening.exchange.message.values:
        return False
    try:
        opening.waiting.insert(0, _port_take(table, opening, family))
    except CapacityError:
        return False
    return True
