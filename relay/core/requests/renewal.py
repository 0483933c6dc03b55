"""A new access token for an allocation (RFC 7635 section 9).

A client whose token is about to end gets another one and refreshes with that what it has allocated.
The new token may be sealed with another key, for keys are changed too, but it has to be of the same
project, and has to come from where the allocation is: with a mobility ticket alone, another client
of the project could take the call away. A token whose place was taken does not come back: a Refresh
that comes late, or is sent again by somebody else, changes nothing.
"""

from __future__ import annotations

from relay.core.allocation import Allocation
from relay.core.credentials import TurnUsername, username_parse
from relay.core.entitlements import EntitlementsFullError
from relay.core.error_codes import ALLOCATION_QUOTA_REACHED, INSUFFICIENT_CAPACITY
from relay.core.requests.exchange import Exchange, RequestRefusedError
from relay.core.tables import AllocationTable

TOKENS_REPLACED_MAX = 16  # of one allocation that are remembered; the others have most likely ended


def token_renewable(exchange: Exchange) -> Allocation | None:
    """The allocation whose token that of a Refresh may take the place of; None where of none."""
    allocation, user = exchange.allocation, exchange.user
    if allocation is None or not (allocation.kid and user.kid):
        return None
    if allocation.username == user.username or allocation.owner != user.owner:
        return None
    if allocation.five_tuple != exchange.five_tuple:
        return None
    was_replaced = _parsed(user.username).credential in allocation.tokens_replaced
    return None if was_replaced else allocation


def token_renew(table: AllocationTable, exchange: Exchange, allocation: Allocation) -> None:
    """Let the token of a Refresh, which has nothing wrong with it, take the allocation's place."""
    user = exchange.user
    parsed, before = _parsed(user.username), allocation.credential
    try:
        quota = table.entitlements.renew(allocation, parsed, user.token_ends_at, exchange.now)
    except EntitlementsFullError as error:
        raise RequestRefusedError(INSUFFICIENT_CAPACITY) from error
    if quota is not None:
        raise RequestRefusedError(ALLOCATION_QUOTA_REACHED, quota)
    allocation.kid, allocation.key = user.kid, user.key
    allocation.tokens_replaced = (*allocation.tokens_replaced, before)[-TOKENS_REPLACED_MAX:]


def _parsed(username: str) -> TurnUsername:
    parsed = username_parse(username)
    assert parsed is not None, "a token's username was put together from its parts"
    return parsed
