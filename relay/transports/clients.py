"""Every way in for clients: at each address and port UDP with DTLS, and TCP with TLS.

address:port ── UDP ── first byte ──▶ STUN, ChannelData │ DTLS ──▶ the same inside
             └─ TCP ── first byte ──▶ messages          │ TLS  ──▶ the same inside
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address

from relay.config import ClientLimits
from relay.core.addresses import FiveTuple, SockAddress
from relay.core.allocation import SendTo
from relay.core.turn import TurnServer
from relay.transports import dtls, udp
from relay.transports.certificates import Certificate
from relay.transports.dtls import DtlsSessions
from relay.transports.listening import Endpoints, endpoints_bind_alone
from relay.transports.messages import Perform
from relay.transports.relayed import RelayedSockets
from relay.transports.rings import Ring
from relay.transports.streams import Network, StreamListener, StreamSockets
from relay.transports.udp import UdpListener


class ClientTransports:
    """The sockets that clients reach this server on.

    Attributes:
        datagrams: UDP and DTLS, one for each address.
        streams: TCP and TLS, all of them.

    Args:
        addresses: where clients reach us.
        endpoints: the sockets there, which were bound for this process; None: they are its own.

    Raises:
        ListenError: one of the addresses cannot be bound.
    """

    def __init__(
        self,
        *,
        addresses: Sequence[SockAddress],
        endpoints: Endpoints | None,
        certificate: Certificate | None,
        trusted: tuple[Network, ...],
        limits: ClientLimits,
        turn: TurnServer,
        perform: Perform,
        clock: Callable[[], float],
        ring: Ring | None,
    ) -> None:
        bound = endpoints or endpoints_bind_alone(addresses)
        self._dropped = turn.dropped
        self.datagrams: list[UdpListener] = []
        self.streams = StreamSockets(
            certificate=certificate, trusted=trusted, limits=limits, turn=turn, clock=clock
        )
        self._senders: dict[tuple[str, SockAddress], SendTo] = {}
        for address, (datagrams, streams) in bound.items():
            self.datagrams.append(UdpListener(address, datagrams, turn, perform, clock, ring))
            self._stream_listen(StreamListener(address, streams, turn, perform))
        for listener in self.datagrams:
            self._senders[udp.TRANSPORT, listener.address] = listener.socket.sendto
            if certificate is not None:
                listener.dtls = DtlsSessions(
                    listener.address, certificate, limits, turn, perform, listener.send
                )
                self._senders[dtls.TRANSPORT, listener.address] = listener.dtls.send

    def _stream_listen(self, listener: StreamListener) -> None:
        self.streams.listen(listener)
        for transport in listener.connections:
            self._senders[transport, listener.address] = listener.sender(transport)

    def sender(self, five_tuple: FiveTuple) -> SendTo:
        """What sends to the clients of this transport at this address of ours.

        It raises OSError where the kernel does not take a message.
        """
        return self._senders[five_tuple.transport, five_tuple.server]

    def send(self, message: bytes, five_tuple: FiveTuple) -> int:
        """Send a message; the bytes that this made, 0 where it was dropped."""
        try:
            return self.sender(five_tuple)(message, five_tuple.client)
        except OSError:
            self._dropped["client unreachable"] += 1
            return 0

    def settings_replace(self, trusted: tuple[Network, ...], limits: ClientLimits) -> None:
        """Believe other balancers, and keep other limits, from now on."""
        self.streams.settings_replace(trusted, limits)
        for listener in self.datagrams:
            if listener.dtls is not None:
                listener.dtls.limits = limits

    def counts(self) -> dict[str, int]:
        """How many connections and sessions clients have, by transport."""
        sessions = sum(len(listener.dtls or ()) for listener in self.datagrams)
        return {**self.streams.counts(), dtls.TRANSPORT: sessions}

    def addresses_count(self) -> tuple[int, int]:
        """How many addresses clients may reach us at, and how many of them from this host alone."""
        hosts = {listener.address[0] for listener in self.datagrams}
        loopback = sum(ip_address(host).is_loopback for host in hosts)
        return len(hosts), loopback

    def watch(self, loop: asyncio.AbstractEventLoop, relayed: RelayedSockets) -> None:
        """Begin to take in what comes: datagrams together with those of the peers."""
        for listener in self.datagrams:
            relayed.watch_clients(listener.address, listener.socket, listener.drain)
        loop.add_reader(self.streams.fileno(), self.streams.drain)

    def unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take in nothing more of streams."""
        loop.remove_reader(self.streams.fileno())

    def sweep_steps(self, now: float) -> Iterator[None]:
        """End what is late, idle or broken, every second; others get their turn between steps."""
        yield from self.streams.sweep_steps(now)
        for listener in self.datagrams:
            if listener.dtls is not None:
                yield from listener.dtls.sweep_steps(now)

    def close(self) -> None:
        """Close everything."""
        self.streams.close_all()
        for listener in self.datagrams:
            listener.close()
