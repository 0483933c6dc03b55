"""Mobility (RFC 8016): an allocation moves to another five-tuple of its client.

    Allocate, empty ticket      ──▶ ticket 1
    Refresh on another five-tuple, ticket 1 ──▶ ticket 2; data still goes to the old five-tuple
    whatever comes on the new one, or the
    end of the old one's connection         ──▶ the old five-tuple is forgotten, and ticket 1

The allocation stays the same one meanwhile: ports, permissions, channels, counters and quota. Where
this differs from the RFC, and why: docs/adr/0017-mobility.md.
"""

from __future__ import annotations

from relay.core import attributes, stun
from relay.core.addresses import FiveTuple
from relay.core.allocation import UDP_PROTOCOL, Allocation
from relay.core.effects import AllocationEnded, AllocationMoved, Effect
from relay.core.error_codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    MOBILITY_FORBIDDEN,
    WRONG_CREDENTIALS,
)
from relay.core.requests.exchange import Exchange, RequestRefusedError
from relay.core.stun import StunMessage
from relay.core.tables import AllocationTable


def mobility_is_asked(table: AllocationTable, exchange: Exchange, protocol: int) -> bool:
    """Whether an Allocate request wants to be able to move (section 3.1.2).

    A TCP allocation cannot: its control connection is what it hangs on.
    """
    ticket = exchange.message.values.get(attributes.MOBILITY_TICKET)
    if ticket is None:
        return False
    if ticket:
        raise RequestRefusedError(BAD_REQUEST)
    if protocol != UDP_PROTOCOL or not table.settings.mobility:
        raise RequestRefusedError(MOBILITY_FORBIDDEN)
    return True


def is_move_asked(message: StunMessage) -> bool:
    """Whether a request is a Refresh with a ticket; to every other one a ticket says nothing."""
    return message.method == stun.REFRESH and attributes.MOBILITY_TICKET in message.values


def ticket_holder(table: AllocationTable, message: StunMessage) -> Allocation | None:
    """The allocation that the ticket of a request is good for."""
    ticket = message.values.get(attributes.MOBILITY_TICKET)
    if not ticket or not table.settings.mobility:
        return None
    content = table.tickets.read(ticket)
    allocation = table.by_id.get(content[0]) if content is not None else None
    if content is None or allocation is None or content[1] not in allocation.tickets:
        return None
    return allocation


def ticket_check(table: AllocationTable, exchange: Exchange) -> None:
    """Refuse a ticket that is not ours, no longer good, or of no use here (section 3.2.2)."""
    ticket = exchange.message.values.get(attributes.MOBILITY_TICKET)
    if ticket is None:
        return
    if not table.settings.mobility:
        raise RequestRefusedError(MOBILITY_FORBIDDEN)
    content = table.tickets.read(ticket)
    if content is None:
        raise RequestRefusedError(BAD_REQUEST)
    allocation = table.by_id.get(content[0])
    if allocation is None:
        raise RequestRefusedError(ALLOCATION_MISMATCH)
    if content[1] not in allocation.tickets or _is_there(table, allocation, content[1], exchange):
        raise RequestRefusedError(BAD_REQUEST)
    if allocation.username != exchange.user.username:
        raise RequestRefusedError(WRONG_CREDENTIALS)
    if allocation is not exchange.allocation:  # its five-tuple has another one
        raise RequestRefusedError(ALLOCATION_MISMATCH)


def _is_there(
    table: AllocationTable, allocation: Allocation, number: int, exchange: Exchange
) -> bool:
    """Whether a request with the ticket of this number comes from where the allocation is.

    An older ticket may come from where it is about to be: the answer with the next one got lost.
    """
    if exchange.five_tuple == allocation.moving_to:
        return number == allocation.tickets[-1]
    return exchange.five_tuple == allocation.five_tuple and allocation.id not in table.adrift


def move_ask(
    table: AllocationTable, exchange: Exchange, allocation: Allocation
) -> tuple[int, bytes] | None:
    """Let the allocation of a Refresh request move to where the request came from.

    Returns:
        The attribute with the next ticket; None where the request has no ticket.
    """
    if attributes.MOBILITY_TICKET not in exchange.message.values:
        return None
    table.move_ask(allocation, exchange.five_tuple)
    return ticket_next(table, allocation)


def ticket_next(table: AllocationTable, allocation: Allocation) -> tuple[int, bytes]:
    """A new ticket; those since the last move stay good, for its answer may get lost."""
    first, last = allocation.tickets.start, allocation.tickets.stop
    allocation.tickets = range(first, last + 1)
    return attributes.MOBILITY_TICKET, table.tickets.make(allocation.id, last)


def move_finish(table: AllocationTable, allocation: Allocation) -> Effect:
    """The client has used its new five-tuple, or closed the old one: that is forgotten."""
    previous = table.move_finish(allocation)
    allocation.tickets = range(allocation.tickets.stop - 1, allocation.tickets.stop)
    return AllocationMoved(allocation, previous)


def client_lost(table: AllocationTable, five_tuple: FiveTuple) -> list[Effect]:
    """The client's connection is gone: end its allocation, or let it go on where it may.

    What can move may be asked for from elsewhere: it lives out its lifetime, and hears and says
    nothing meanwhile, for whoever has this five-tuple next is somebody else. What has been asked
    for there is there from now on (RFC 8016 section 3.2.2).
    """
    if five_tuple in table.moving:
        table.move_drop(table.moving[five_tuple])
    allocation = table.find(five_tuple)
    if allocation is None:
        return []
    if allocation.moving_to is not None:
        return [move_finish(table, allocation)]
    if allocation.tickets:
        table.client_forget(allocation)
        return []
    table.remove(allocation)
    return [AllocationEnded(allocation)]
