"""Refresh (RFC 8656 section 8)."""

from __future__ import annotations

from relay.core import attributes
from relay.core.allocation import Allocation
from relay.core.effects import AllocationEnded, CloseRelayed, Effect
from relay.core.error_codes import PEER_ADDRESS_FAMILY_MISMATCH
from relay.core.requests.exchange import (
    Exchange,
    RequestRefusedError,
    allocation_of,
    client_check,
    family_read,
    lifetime_read,
    success,
)
from relay.core.requests.mobility import move_ask, ticket_check
from relay.core.requests.renewal import token_renew, token_renewable
from relay.core.requests.tcp import family_lost
from relay.core.tables import AllocationTable


def refresh(table: AllocationTable, exchange: Exchange) -> list[Effect]:
    """Refresh (section 8.2): a new lifetime; zero ends the allocation, or one family of it."""
    ticket_check(table, exchange)
    if attributes.MOBILITY_TICKET in exchange.message.values:
        client_check(exchange)
    renewable = token_renewable(exchange)
    allocation = renewable or allocation_of(exchange)
    family = family_read(exchange, attributes.REQUESTED_ADDRESS_FAMILY)
    if family is not None and family not in allocation.relayed:
        raise RequestRefusedError(PEER_ADDRESS_FAMILY_MISMATCH)
    asked = lifetime_read(table, exchange)
    ends = asked == 0 and family is None  # whoever hangs up needs no room for another token
    if renewable is not None and not ends:
        token_renew(table, exchange, renewable)
    unix_now = table.entitlements.unix(exchange.now)
    lifetime = min(asked, allocation.seconds_until_cut(unix_now))
    ticket = move_ask(table, exchange, allocation)
    values = [(attributes.LIFETIME, lifetime.to_bytes(4, "big"))]
    answer = success(exchange, values if ticket is None else [*values, ticket])
    if lifetime == 0 or ticket is not None:
        table.answers.keep(
            exchange.five_tuple, exchange.message.transaction_id, answer.datagram, exchange.now
        )
    if lifetime == 0:
        return [answer, *_end(table, allocation, family)]
    for relayed in allocation.relayed.values():
        if family in (None, relayed.family):
            table.extend(allocation, relayed, exchange.now + lifetime)
    return [answer]


def _end(table: AllocationTable, allocation: Allocation, family: int | None) -> list[Effect]:
    if family is None or len(allocation.relayed) == 1:
        table.remove(allocation)
        return [AllocationEnded(allocation)]
    lost = family_lost(table, allocation, family)
    return [*lost, CloseRelayed(allocation, table.family_remove(allocation, family))]
