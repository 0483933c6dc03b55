"""The UDP listener: datagrams of clients in, answers and relayed data out.

By its first byte a datagram is STUN (0 to 3), DTLS (20 to 63) or ChannelData (64 to 127); the
others are somebody's who took us for somebody else (RFC 7983, RFC 9443).
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from relay.core.addresses import FiveTuple, SockAddress
from relay.core.turn import TurnServer
from relay.transports.crowd import Crowd
from relay.transports.dtls import DtlsSessions
from relay.transports.messages import ClientMessages, Perform
from relay.transports.packet_filters import filter_detach
from relay.transports.relayed import send_again

TRANSPORT = "udp"
DATAGRAM_LENGTH_MAX = 65535
# After so many datagrams the event loop gets its turn: timers and other sockets wait 1 ms at most.
DRAIN_MAX = 256
# And after so many requests: one costs as much as 50 datagrams of data.
CONTROL_MAX = 32
STUN_FIRST_BYTE_MAX = 3
DTLS_FIRST_BYTES = range(20, 64)
# So many full drains in a row before the next one takes more at once.
PATIENCE = 8
NOBODY: SockAddress = ("::", 0)

Receive = Callable[[bytearray], tuple[int, SockAddress]]


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
        self._buffer = bytearray(DATAGRAM_LENGTH_MAX)
        self._burst = 1
        self._full_drains = 0
        self._messages = ClientMessages(TRANSPORT, address, turn, perform)
        self._clients = self._messages.clients
        self.socket = endpoint
        filter_detach(endpoint)  # a process that had it before may have thinned somebody out
        self._receive: Receive = (
            self._receive_ipv6 if ":" in address[0] else self.socket.recvfrom_into
        )
        self.crowd = Crowd(self.socket)

    def send(self, datagram: bytes | memoryview, client: SockAddress) -> int:
        """Send to a client; the bytes that went, 0 where the kernel would not take them."""
        try:
            return self.socket.sendto(datagram, client)
        except OSError:
            self._turn.dropped["client unreachable"] += 1
            return 0

    def _receive_ipv6(self, buffer: bytearray) -> tuple[int, SockAddress]:
        length, address = self.socket.recvfrom_into(buffer)
        return length, address[:2]  # without flow and scope

    def close(self) -> None:
        """Close the socket."""
        if self.dtls is not None:
            self.dtls.close()
        self.socket.close()

    def drain(self, rested: bool = False) -> int:
        """Take in what waits, once the socket is known to have something.

        To ask an empty socket costs as much as half a datagram. So a drain takes as many as came
        at once of late and leaves the rest to the next call, which follows at once.

        Args:
            rested: datagrams have had time to gather: take all of them.

        Returns:
            How many datagrams of data there were.
        """
        receive, buffer, clients = self._receive, self._buffer, self._clients
        forward = self._turn.forward_from_client
        view = memoryview(buffer)
        now, client, controls = self._clock(), NOBODY, 0
        for received in range(DRAIN_MAX if rested else self._burst):
            try:
                length, client = receive(buffer)
            except BlockingIOError:
                self._burst = received or 1
                self._full_drains = 0
                return received - controls
            except OSError:  # an ICMP error of an earlier answer; nothing was received
                continue
            if buffer[0] & 0xC0 != 0x40 or not length:
                self._control(bytes(view[:length]), client, now)
                controls += 1
                if controls == CONTROL_MAX:
                    break  # what is left is told again
                continue
            allocation = clients.get(client)
            if allocation is None or allocation.relayed_send is None:
                self._messages.take(view[:length], client, now)
                continue
            route = forward(allocation, buffer, length, now)
            if route is None:
                continue
            end, peer = route
            try:
                allocation.relayed_send(view[4:end], peer)
            except OSError:
                send_again(self._turn, allocation, allocation.relayed_send, view[4:end], peer)
            else:
                allocation.peer_sent_bytes += end - 4
        self._burst_raise(client)
        return received + 1 - controls

    def _burst_raise(self, client: SockAddress) -> None:
        """As much came as was taken: if that goes on, take more, or look who it is."""
        if self._burst == DRAIN_MAX and len(self._clients) > (client in self._clients):
            self.crowd.sample(client)
        self._full_drains += 1
        if self._full_drains == PATIENCE:
            self._full_drains = 0
            self._burst = min(2 * self._burst, DRAIN_MAX)

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
