"""The methods that an authenticated request may have (RFC 8656 section 17, RFC 6062 section 6)."""

from __future__ import annotations

from collections.abc import Callable

from relay.core import stun
from relay.core.effects import Effect
from relay.core.requests import tcp
from relay.core.requests.exchange import Exchange
from relay.core.requests.opening import Openings
from relay.core.requests.peers import channel_bind, create_permission
from relay.core.requests.refresh import refresh
from relay.core.settings import TurnSettings
from relay.core.tables import AllocationTable

Method = Callable[[AllocationTable, Exchange], list[Effect]]


def methods_of(settings: TurnSettings, openings: Openings) -> dict[int, Method]:
    """What answers each method, by its number."""
    methods: dict[int, Method] = {
        stun.ALLOCATE: lambda _, exchange: openings.request(exchange),
        stun.REFRESH: refresh,
        stun.CREATE_PERMISSION: create_permission,
        stun.CHANNEL_BIND: channel_bind,
    }
    if settings.tcp_relay:
        methods[stun.CONNECT] = tcp.connect
        methods[stun.CONNECTION_BIND] = tcp.connection_bind
    return methods
