"""The UDP listener: datagrams of clients in, answers and relayed data out.

By its first byte a datagram is STUN (0 to 3), DTLS (20 to 63) or ChannelData (64 to 127); the
others are somebody's who took us for somebody else (RFC 7983, RFC 9443).
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from relay.core.addresses import FiveTuple, SockAddress
from relay.core.turn import TurnServer
from relay.transports.batches import SLOTS, ReceiveBatch, name_decode
from relay.transports.crowd import Crowd
from relay.transports.dtls import DtlsSessions
from relay.transports.messages import ClientMessages, Perform
from relay.transports.packet_filters import filter_detach
from relay.transports.relayed import send_again

TRANSPORT = "udp"
# After so many datagrams the event loop gets its turn: timers and other sockets wait 1 ms or two.
DRAIN_MAX = 256
# And after the batch with the last of so many requests: one costs as much as 30 datagrams of data.
CONTROL_MAX = 2 * SLOTS
# So many clients' addresses need not be read anew with every datagram.
KNOWN_MAX = 16384
KNOWN_SPARE = 64
STUN_FIRST_BYTE_MAX = 3
DTLS_FIRST_BYTES = range(20, 64)
NOBODY: SockAddress = ("::", 0)


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
    ) -> None:
        self.address = address
        self.dtls: DtlsSessions | None = None
        self._turn = turn
        self._perform = perform
        self._clock = clock
        self._messages = ClientMessages(TRANSPORT, address, turn, perform)
        self._clients = self._messages.clients
        self.socket = endpoint
        filter_detach(endpoint)  # a process that had it before may have thinned somebody out
        self._batch = ReceiveBatch(endpoint)
        self._known: dict[bytes, SockAddress] = {}
        self._last = NOBODY  # who sent the last datagram
        self.crowd = Crowd(self.socket)

    def send(self, datagram: bytes | memoryview, client: SockAddress) -> int:
        """Send to a client; the bytes that went, 0 where the kernel would not take them."""
        try:
            return self.socket.sendto(datagram, client)
        except OSError:
            self._turn.dropped["client unreachable"] += 1
            return 0

    def forget(self) -> None:
        """Forget the addresses of those who have no allocation any more; every second."""
        known = self._known
        if len(known) > 2 * len(self._clients) + KNOWN_SPARE:
            self._known = {name: who for name, who in known.items() if who in self._clients}

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
            controls += self._take(count, now)
            taken += count
            if count < SLOTS or controls >= CONTROL_MAX:
                break
            if taken >= DRAIN_MAX:
                if len(self._clients) > (self._last in self._clients):  # there are others
                    self.crowd.sample(self._last)
                break
        return taken - controls

    def _take(self, count: int, now: float) -> int:
        """Take in so many datagrams of the batch; how many of them were no ChannelData."""
        known, clients, forward = self._known, self._clients, self._turn.forward_from_client
        client, controls = self._last, 0
        for slot, (length,), (name,) in self._batch.datagrams(count):
            client = known.get(name) or self._known_add(name)
            if not length or slot[0] & 0xC0 != 0x40:
                self._control(bytes(slot[:length]), client, now)
                controls += 1
                continue
            allocation = clients.get(client)
            if allocation is None or allocation.relayed_send is None:
                self._messages.take(slot[:length], client, now)
                continue
            route = forward(allocation, slot, length, now)
            if route is None:
                continue
            end, peer = route
            try:
                allocation.relayed_send(slot[4:end], peer)
            except OSError:
                send_again(self._turn, allocation, allocation.relayed_send, slot[4:end], peer)
            else:
                allocation.peer_sent_bytes += end - 4
        self._last = client
        return controls

    def _known_add(self, name: bytes) -> SockAddress:
        """Who sent a datagram; remembered of those who have an allocation."""
        client = name_decode(name)
        if client in self._clients:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[name] = client
        return client

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
