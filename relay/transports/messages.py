"""Messages of clients, one by one; what of UDP is known has a faster lane of its own in `udp`."""

from __future__ import annotations

from collections.abc import Callable

from relay.core.addresses import FiveTuple, SockAddress
from relay.core.allocation import Allocation
from relay.core.channeldata import CHANNELDATA_HEADER, HEADER_LENGTH
from relay.core.effects import Effect
from relay.core.turn import TurnServer
from relay.transports.sending import data_send

Perform = Callable[[list[Effect]], None]


class ClientMessages:
    """What comes from the clients of one transport at one of our addresses.

    Attributes:
        clients: the allocations of these clients, by their address.
    """

    def __init__(
        self, transport: str, server: SockAddress, turn: TurnServer, perform: Perform
    ) -> None:
        self.transport = transport
        self.server = server
        self.clients = turn.table.clients(transport, server)
        self._turn = turn
        self._perform = perform

    def take(self, message: memoryview, client: SockAddress, now: float) -> None:
        """Take one message, STUN or ChannelData with its padding."""
        if message[0] & 0xC0 != 0x40:
            five_tuple = FiveTuple(self.transport, client, self.server)
            effects = self._turn.receive_from_client(bytes(message), five_tuple, now)
            if effects:
                self._perform(effects)
            return
        allocation = self.clients.get(client) or self._moved(client)
        if allocation is None or allocation.relayed_send is None:
            self._turn.dropped["no allocation"] += 1
            return
        if len(message) < HEADER_LENGTH:
            self._turn.dropped["malformed"] += 1
            return
        number, data_length = CHANNELDATA_HEADER.unpack_from(message)
        channel = self._turn.forward_from_client(
            allocation, number, data_length, message, len(message), now
        )
        if channel is None:
            return
        data = message[HEADER_LENGTH : HEADER_LENGTH + data_length]
        data_send(self._turn, allocation, allocation.relayed_send, data, channel.peer)

    def keeps(self, client: SockAddress) -> bool:
        """Whether a client has an allocation here, or one that is about to move here."""
        if client in self.clients:
            return True
        moving = self._turn.table.moving
        return bool(moving) and FiveTuple(self.transport, client, self.server) in moving

    def _moved(self, client: SockAddress) -> Allocation | None:
        """An allocation that moves to this client with the data that came."""
        if not self._turn.table.moving:
            return None
        self._perform(self._turn.moved_here(FiveTuple(self.transport, client, self.server)))
        return self.clients.get(client)

    def lost(self, client: SockAddress) -> None:
        """The client's connection is gone."""
        self._perform(self._turn.client_lost(FiveTuple(self.transport, client, self.server)))
