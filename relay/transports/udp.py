"""The UDP listener: datagrams of clients in, answers and relayed data out.

By its first byte a datagram is STUN (0 to 3), DTLS (20 to 63) or ChannelData (64 to 127); the
others are somebody's who took us for somebody else (RFC 7983, RFC 9443).
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from relay.core.addresses import FiveTuple, SockAddress
from relay.core.allocation import Allocation, Channel
from relay.core.channeldata import HEADER_LENGTH
from relay.core.turn import TurnServer
from relay.transports.batches import SLOTS, ReceiveBatch, name_decode
from relay.transports.crowd import Crowd
from relay.transports.dtls import DtlsSessions
from relay.transports.messages import ClientMessages, Perform
from relay.transports.packet_filters import filter_detach
from relay.transports.rings import (
    ENTRIES_MASK,
    SEND,
    SEND_FLAGS,
    SEND_PLACES,
    Ring,
    route_make,
)
from relay.transports.sending import data_send

TRANSPORT = "udp"
# After so many datagrams the event loop gets its turn: timers and other sockets wait 1 ms or two.
DRAIN_MAX = 256
# And after the batch with the last of so many requests: one costs as much as 30 datagrams of data.
CONTROL_MAX = 2 * SLOTS
FIRST_BITS, CHANNELDATA_BITS = 0xC000, 0x4000  # of a channel number
STUN_FIRST_BYTE_MAX = 3
DTLS_FIRST_BYTES = range(20, 64)


class UdpListener:
    """One socket that clients send to.

    Attributes:
        crowd: who takes more than this socket can give.
        dtls: the sessions of those who speak DTLS here; None where there is no certificate.
    """

    def __init__(
        self,
        address: SockAddress,
        endpoint: socket.socket,
        turn: TurnServer,
        perform: Perform,
        clock: Callable[[], float],
        ring: Ring | None,
    ) -> None:
        self.address = address
        self.dtls: DtlsSessions | None = None
        self._turn = turn
        self._perform = perform
        self._clock = clock
        self._ring = ring
        self._messages = ClientMessages(TRANSPORT, address, turn, perform)
        self._clients = self._messages.clients
        self.socket = endpoint
        filter_detach(endpoint)  # a process that had it before may have thinned somebody out
        self._batch = ReceiveBatch(endpoint)
        # Those that have sent data, by what the kernel calls their address: it is not read again.
        self._known: dict[bytes, Allocation] = {}
        self._last = b""  # who sent the last datagram
        self.crowd = Crowd(self.socket)

    def send(self, datagram: bytes | memoryview, client: SockAddress) -> int:
        """Send to a client; the bytes that went, 0 where the kernel would not take them."""
        try:
            return self.socket.sendto(datagram, client)
        except OSError:
            self._turn.dropped["client unreachable"] += 1
            return 0

    def close(self) -> None:
        """Close the socket."""
        if self.dtls is not None:
            self.dtls.close()
        self.socket.close()

    def drain(self) -> int:
        """Take in what waits, as far as that is DRAIN_MAX datagrams; the rest is told again.

        Returns:
            How many datagrams of data there were.
        """
        now, taken, controls = self._clock(), 0, 0
        while True:
            try:
                count = self._batch.receive()
            except OSError:  # an ICMP error of an earlier answer; what else waits is told again
                break
            if count:
                controls += self._take(count, now)
            taken += count
            if count < SLOTS or controls >= CONTROL_MAX:
                break
            if taken >= DRAIN_MAX:
                last = name_decode(self._last)
                if len(self._clients) > (last in self._clients):  # there are others
                    self.crowd.sample(last)
                break
        return taken - controls

    def _take(self, count: int, now: float) -> int:
        """Take in so many datagrams of the batch; how many of them were no ChannelData."""
        find, forward, pack = self._known.get, self._turn.forward_from_client, SEND.pack_into
        places = SEND_PLACES
        ring, controls = self._ring, 0
        tail = 0 if ring is None else ring.tail  # the ring's is of orders that the kernel was told
        datagrams = self._batch.datagrams(count)
        try:
            for slot, data_at, (length,), (name, number, data_length) in datagrams:
                allocation = find(name)
                if allocation is None or number & FIRST_BITS != CHANNELDATA_BITS:
                    if ring is not None:
                        self._submit(ring, tail - ring.tail)
                    controls += self._take_slowly(slot[:length], name, now)
                    if ring is not None:
                        tail = ring.tail
                    continue
                channel = forward(allocation, number, data_length, slot, length, now)
                if channel is None:
                    continue
                route = channel.route
                if ring is None or route is None:
                    self._send(allocation, channel, slot, data_length)
                    continue
                descriptor, peer_at, _ = route
                pack(
                    ring.entries,
                    places[tail & ENTRIES_MASK],
                    descriptor,
                    peer_at,
                    data_at,
                    data_length,
                    SEND_FLAGS,
                    data_at,
                )
                tail += 1
                allocation.peer_sent_bytes += data_length
        finally:  # what a fault has left behind is sent: it is counted
            if ring is not None:
                self._submit(ring, tail - ring.tail)
        self._last = name
        return controls

    def _submit(self, ring: Ring, count: int) -> None:
        """Have data sent; what the kernel did not take is sent again from its slot."""
        for data_at, _, _ in ring.submit(count) if count > 0 else ():
            slot, (name, number, data_length) = self._batch.datagram_at(data_at)
            allocation = self._known[name]
            allocation.peer_sent_bytes -= data_length
            self._send(allocation, allocation.channels[number], slot, data_length)

    def _send(
        self, allocation: Allocation, channel: Channel, slot: memoryview, data_length: int
    ) -> None:
        """Send by the socket itself: without a ring, where it could not, and the first time."""
        assert allocation.relayed_send is not None, "or it had no channel"
        data = slot[HEADER_LENGTH : HEADER_LENGTH + data_length]
        data_send(self._turn, allocation, allocation.relayed_send, data, channel.peer)
        if self._ring is not None and allocation.relayed_descriptor >= 0:
            channel.route = route_make(allocation.relayed_descriptor, channel.peer)

    def _take_slowly(self, datagram: memoryview, name: bytes, now: float) -> bool:
        """Take in anything of anybody; whether it was no ChannelData."""
        client = name_decode(name)
        if not datagram or datagram[0] & 0xC0 != 0x40:
            self._control(bytes(datagram), client, now)
            return True
        self._messages.take(datagram, client, now)
        allocation = self._clients.get(client)
        if allocation is not None and allocation.client_known is None:
            self._known[name] = allocation
            allocation.client_known = self._known, name
        return False

    def _control(self, datagram: bytes, client: SockAddress, now: float) -> None:
        first = datagram[0] if datagram else 0xFF
        if "%" in client[0]:  # a link-local address, good on its link only
            self._turn.dropped["client unreachable"] += 1
        elif first <= STUN_FIRST_BYTE_MAX:
            five_tuple = FiveTuple(TRANSPORT, client, self.address)
            effects = self._turn.receive_from_client(datagram, five_tuple, now)
            if effects:
                self._perform(effects)
        elif first in DTLS_FIRST_BYTES and self.dtls is not None:
            self.dtls.receive(datagram, client, now)
        else:
            self._turn.dropped["malformed"] += 1
