"""From taken ports to the answer of an Allocate request (RFC 8656 section 7.2).

Allocate ──▶ OpenRelayed ──opened──▶ the next address, or AllocationStarted and the answer
                 ▲   └──────failed──▶ another port ──┐
                 └───────────────────────────────────┘
"""

from __future__ import annotations

from math import ceil

from relay.core import attributes, stun
from relay.core.addresses import FAMILY_IPV4, FAMILY_IPV6, FiveTuple, xor_address_encode
from relay.core.allocation import Allocation
from relay.core.effects import AllocationStarted, Effect, OpenRelayed, SendToClient
from relay.core.error_codes import INSUFFICIENT_CAPACITY
from relay.core.guard import Guard
from relay.core.requests.allocate import (
    RELAYED_PORT_TRIES,
    Opening,
    allocate,
    another_port_take,
    port_give_back,
    retransmitted_allocate,
)
from relay.core.requests.exchange import Exchange, acceptance
from relay.core.stun import error_code_encode
from relay.core.tables import AllocationTable

NOT_OPENED = "the relayed port could not be opened: see to this relay's addresses and descriptors"


class Openings:
    """Allocations that wait for their relayed sockets: at most as many as there are ports."""

    def __init__(self, table: AllocationTable, guard: Guard) -> None:
        self._table = table
        self._guard = guard
        self._openings: dict[int, Opening] = {}  # by allocation id
        self._five_tuples: set[FiveTuple] = set()

    def request(self, exchange: Exchange) -> list[Effect]:
        """Allocate (section 7.2): the answer follows once the relayed sockets are open."""
        answer = retransmitted_allocate(exchange)
        if answer is not None:
            return [answer]
        if exchange.five_tuple in self._five_tuples:
            return []  # its answer is on its way
        opening = allocate(self._table, exchange)
        self._openings[opening.allocation.id] = opening
        self._five_tuples.add(exchange.five_tuple)
        return [_open_next(opening)]

    def opened(self, allocation: Allocation, now: float) -> list[Effect]:
        """The address that was asked for is open."""
        opening = self._openings[allocation.id]
        relayed = opening.waiting.pop(0)
        allocation.relayed[relayed.family] = relayed
        if opening.reserved is not None:
            allocation.reservation_token = self._table.reserve(opening.reserved, now)
        return self._next(opening, now)

    def failed(self, allocation: Allocation, now: float, *, another_may_do: bool) -> list[Effect]:
        """It could not be opened: try another port where that may do."""
        opening = self._openings[allocation.id]
        family = opening.waiting[0].family
        port_give_back(self._table, opening)
        if another_may_do and another_port_take(self._table, opening, family):
            return [_open_next(opening)]
        opening.failed[family] = INSUFFICIENT_CAPACITY
        if not another_may_do:
            opening.fault = NOT_OPENED
        return self._next(opening, now)

    def _next(self, opening: Opening, now: float) -> list[Effect]:
        allocation = opening.allocation
        if opening.waiting:
            opening.tries_left = RELAYED_PORT_TRIES
            return [_open_next(opening)]
        del self._openings[allocation.id]
        self._five_tuples.remove(allocation.five_tuple)
        if not allocation.relayed:
            self._table.entitlements.release(allocation)
            owner, username, fault = allocation.owner, allocation.username, opening.fault
            self._guard.note(stun.ALLOCATE, INSUFFICIENT_CAPACITY, owner, username, fault, now)
            return [*acceptance(opening.exchange), _refusal(opening)]
        allocation.answer = _answer(self._table, opening, now)
        self._table.enter(allocation)
        return [
            AllocationStarted(allocation),
            SendToClient(allocation.five_tuple, allocation.answer, allocation),
        ]


def _open_next(opening: Opening) -> OpenRelayed:
    return OpenRelayed(opening.allocation, opening.waiting[0], opening.reserved)


def _refusal(opening: Opening) -> SendToClient:
    exchange = opening.exchange
    values = [(attributes.ERROR_CODE, error_code_encode(INSUFFICIENT_CAPACITY, explained=True))]
    datagram = stun.stun_answer(exchange.message, stun.ERROR, values, exchange.user.key)
    return SendToClient(exchange.five_tuple, datagram)


def _answer(table: AllocationTable, opening: Opening, now: float) -> bytes:
    allocation, exchange = opening.allocation, opening.exchange
    transaction_id = allocation.transaction_id
    left = max(0, ceil(opening.expires_at - now))  # as asked, where the socket was there at once
    lifetime = min(left, allocation.seconds_until_cut(table.entitlements.unix(now)))
    values = [
        (attributes.XOR_RELAYED_ADDRESS, xor_address_encode(relayed.sockaddr, transaction_id))
        for relayed in allocation.relayed.values()
    ]
    values += [
        (attributes.LIFETIME, lifetime.to_bytes(4, "big")),
        (attributes.XOR_MAPPED_ADDRESS, xor_address_encode(allocation.client, transaction_id)),
    ]
    if allocation.reservation_token:
        values.append((attributes.RESERVATION_TOKEN, allocation.reservation_token))
    if allocation.tickets:
        values.append((attributes.MOBILITY_TICKET, table.tickets.make(allocation.id, 1)))
    for family in (FAMILY_IPV4, FAMILY_IPV6):
        if family in opening.failed:
            value = bytes((family,)) + error_code_encode(opening.failed[family])[1:]
            values.append((attributes.ADDRESS_ERROR_CODE, value))
    return stun.stun_answer(exchange.message, stun.SUCCESS, values, exchange.user.key)
