"""One allocation and what it holds (RFC 8656 section 6).

Permissions and channel bindings end by comparing times when they are used, so they need no timer;
each table has a maximum, and what has ended makes room first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import NamedTuple

from relay.core.addresses import FiveTuple, SockAddress, host_family
from relay.core.gate import Gate
from relay.core.integrity import IntegrityKey, LongTermKeys
from relay.core.settings import TurnSettings

UDP_PROTOCOL = 17  # protocol numbers of IP
TCP_PROTOCOL = 6
NEVER = 0xFFFFFFFF  # seconds; the largest LIFETIME

SendTo = Callable[[memoryview | bytes, SockAddress], int]


class Route(NamedTuple):
    """What the transports work out once of a way that data takes, and keep with it.

    Attributes:
        descriptor: of the socket to send from.
        name_at: where the kernel finds whom to send to.
        name: what lies there.
    """

    descriptor: int
    name_at: int
    name: Hashable  # or anything else; mypyc does not take "object" for an answer


class Channel:
    """A channel binding: data flows while both it and the permission of its peer live.

    Attributes:
        number, peer: what it joins.
        peer_noted: whether data has flowed, so that the connection log has the peer.
        route: to the peer; None until the transports have worked it out.
        expires_at: of the binding; usable_until: of the binding and the permission, whichever
            is first.
    """

    __slots__ = ("expires_at", "number", "peer", "peer_noted", "route", "usable_until")

    def __init__(self, number: int, peer: SockAddress) -> None:
        self.number = number
        self.peer = peer
        self.peer_noted = False
        self.route: Route | None = None
        self.expires_at = 0.0
        self.usable_until = 0.0


class RelayedAddress:
    """A relayed transport address; an allocation has one, or one of each family.

    Attributes:
        family: FAMILY_IPV4 or FAMILY_IPV6.
        sockaddr: host and port.
        expires_at: those of a dual allocation may be refreshed one by one.
    """

    __slots__ = ("expires_at", "family", "sockaddr")

    def __init__(self, host: str, port: int, expires_at: float) -> None:
        self.family = host_family(host)
        self.sockaddr: SockAddress = (host, port)
        self.expires_at = expires_at

    @property
    def port(self) -> int:
        """The port."""
        return self.sockaddr[1]


class Allocation:
    """The state of one allocation.

    Attributes:
        id: unique within one start of the relay.
        five_tuple, client, transport: where the client is and how it came; "udp", "tcp", "tls" or
            "dtls".
        owner: the public id of the project that the credential belongs to.
        username, keys: only this user may refresh it; the password itself is not kept.
        key: of the Allocate request; its answer is covered with it.
        kid: the key id of the access token that it hangs on; empty where it hangs on none. The
            token's mac_key is in `key` then, and `keys` are none.
        token_ends_at: unix seconds; when that token ends, and with it the allocation.
        protocol: between relay and peers, UDP_PROTOCOL or TCP_PROTOCOL.
        relayed: the relayed transport addresses by family.
        reservation_token: of the port above, where one was reserved; else empty.
        tickets: the numbers of the mobility tickets that are good; empty where it cannot move.
        tokens_replaced: ids of the access tokens whose place another one has taken.
        moving_to: the five-tuple that it will have once the client uses it.
        transaction_id, answer: of the Allocate request, for retransmissions.
        deadline: when the table looks at it next; its end or earlier.
        credential: the id of the credential that made it.
        cut_at: unix seconds; it ends then whatever its lifetime, with its credential.
        refresh_until: unix seconds; from then on it may only live out its lifetime.
        gate: what its data has to pass; None where there is no such limit.
        relayed_send: sends to a peer; None until a relayed socket is open.
        relayed_descriptor: of that socket; -1 where there is none, or one of each family.
        client_send: sends a message to the client over its transport; the bytes that this made,
            with a stream's padding, 0 where the message was dropped. None until then. Both raise
            OSError where the kernel does not take it.
        client_known: a table of the transports that it is in, and its key there, until its
            five-tuple may be somebody else's; None where it is in none.
        client_route: to a client that sends datagrams; None until the transports have worked it
            out.
        client_received_bytes, client_sent_bytes: payload of the client's transport, with STUN
            and ChannelData framing; peer_received_bytes, peer_sent_bytes: data to and from peers.
        client_received_packets, peer_received_packets: packets of data that passed every check.
        peers_unreported: peers first seen since the meter last asked.
    """

    __slots__ = (
        "answer",
        "channel_by_peer",
        "channels",
        "client",
        "client_known",
        "client_received_bytes",
        "client_received_packets",
        "client_route",
        "client_send",
        "client_sent_bytes",
        "credential",
        "cut_at",
        "deadline",
        "five_tuple",
        "gate",
        "id",
        "key",
        "keys",
        "kid",
        "moving_to",
        "owner",
        "peer_received_bytes",
        "peer_received_packets",
        "peer_sent_bytes",
        "peers",
        "peers_unreported",
        "permissions",
        "protocol",
        "refresh_until",
        "relayed",
        "relayed_descriptor",
        "relayed_send",
        "reservation_token",
        "tickets",
        "token_ends_at",
        "tokens_replaced",
        "transaction_id",
        "transport",
        "username",
    )

    def __init__(
        self,
        *,
        number: int,
        five_tuple: FiveTuple,
        owner: str,
        username: str,
        keys: LongTermKeys,
        key: IntegrityKey,
        transaction_id: bytes,
    ) -> None:
        self.id = number
        self.five_tuple_set(five_tuple)
        self.owner = owner
        self.username = username
        self.keys = keys
        self.key = key
        self.kid = ""
        self.token_ends_at = inf
        self.transaction_id = transaction_id
        self.answer = b""
        self.reservation_token = b""
        self.relayed: dict[int, RelayedAddress] = {}
        self.protocol = UDP_PROTOCOL
        self.deadline = 0.0
        self.tickets = range(1, 1)
        self.tokens_replaced: tuple[str, ...] = ()
        self.moving_to: FiveTuple | None = None
        self.credential = ""
        self.cut_at = inf
        self.refresh_until = inf
        self.gate: Gate | None = None
        self.relayed_send: SendTo | None = None
        self.relayed_descriptor = -1
        self.client_send: SendTo | None = None
        self.client_known: tuple[dict[bytes, Allocation], bytes] | None = None
        self.permissions: dict[str, float] = {}
        self.channels: dict[int, Channel] = {}
        self.channel_by_peer: dict[SockAddress, Channel] = {}
        self.peers: set[SockAddress] = set()
        self.peers_unreported: list[SockAddress] = []
        self.client_received_bytes = 0
        self.client_sent_bytes = 0
        self.peer_received_bytes = 0
        self.peer_sent_bytes = 0
        self.client_received_packets = 0
        self.peer_received_packets = 0

    @property
    def expires_at(self) -> float:
        """When the last of its relayed addresses ends."""
        return max((relayed.expires_at for relayed in self.relayed.values()), default=0.0)

    def seconds_until_cut(self, unix_now: float) -> int:
        """The longest lifetime it may be told, at least 1 second."""
        return NEVER if self.cut_at == inf else max(1, int(self.cut_at - unix_now))

    def five_tuple_set(self, five_tuple: FiveTuple) -> None:
        """Take the five-tuple to which it has moved."""
        self.five_tuple = five_tuple
        self.client = five_tuple.client
        self.client_route: Route | None = None
        self.transport = five_tuple.transport

    def is_own(self, peer: SockAddress) -> bool:
        """Whether `peer` is a relayed address of this allocation: it is no peer of itself."""
        return any(relayed.sockaddr == peer for relayed in self.relayed.values())

    def family_remove(self, family: int) -> RelayedAddress:
        """Take out one relayed address with its permissions and channels (RFC 8656 section 8.1)."""
        self.permissions = {
            host: end for host, end in self.permissions.items() if host_family(host) != family
        }
        for channel in list(self.channels.values()):
            if host_family(channel.peer[0]) == family:
                self._channel_remove(channel)
        return self.relayed.pop(family)

    def permission_is_live(self, host: str, now: float) -> bool:
        """Whether data may flow to and from this address (RFC 8656 section 9)."""
        return self.permissions.get(host, 0.0) > now

    def permissions_have_room(self, hosts: set[str], settings: TurnSettings, now: float) -> bool:
        """Whether permissions for `hosts` fit, once those that ended are gone."""
        if len(self.permissions.keys() | hosts) <= settings.permissions_max:
            return True
        self.permissions = {host: end for host, end in self.permissions.items() if end > now}
        return len(self.permissions.keys() | hosts) <= settings.permissions_max

    def permission_install(self, host: str, expires_at: float) -> None:
        """Install or refresh one; channels to that address become usable with it."""
        self.permissions[host] = expires_at
        for channel in self.channels.values():
            if channel.peer[0] == host:
                channel.usable_until = min(channel.expires_at, expires_at)

    def channel_conflicts(self, number: int, peer: SockAddress, now: float) -> bool:
        """Whether a live binding joins this number or this peer to another (section 12.2)."""
        by_number = self.channels.get(number)
        by_peer = self.channel_by_peer.get(peer)
        return any(
            channel is not None
            and channel.expires_at > now
            and (channel.number != number or channel.peer != peer)
            for channel in (by_number, by_peer)
        )

    def channels_have_room(self, number: int, settings: TurnSettings, now: float) -> bool:
        """Whether one more binding fits, once those that ended are gone."""
        if number in self.channels or len(self.channels) < settings.channels_max:
            return True
        for channel in [found for found in self.channels.values() if found.expires_at <= now]:
            self._channel_remove(channel)
        return len(self.channels) < settings.channels_max

    def channel_bind(self, number: int, peer: SockAddress, expires_at: float) -> None:
        """Bind or refresh; the caller has asked `channel_conflicts` and installs the permission."""
        channel = self.channels.get(number)
        if channel is None or channel.peer != peer:
            for ended in (channel, self.channel_by_peer.get(peer)):
                if ended is not None:
                    self._channel_remove(ended)
            channel = Channel(number, peer)
            self.channels[number] = channel
            self.channel_by_peer[peer] = channel
        channel.expires_at = expires_at

    def peers_part(
        self, host_is_refused: Callable[[str], bool], peer_is_refused: Callable[[SockAddress], bool]
    ) -> None:
        """End the permissions and channels of peers that may no longer be reached."""
        for host in [found for found in self.permissions if host_is_refused(found)]:
            del self.permissions[host]
        for channel in list(self.channels.values()):
            if peer_is_refused(channel.peer):
                self._channel_remove(channel)

    def _channel_remove(self, channel: Channel) -> None:
        channel.usable_until = 0.0  # for whoever still has it
        self.channels.pop(channel.number, None)
        self.channel_by_peer.pop(channel.peer, None)

    def peer_note(self, peer: SockAddress, peers_max: int) -> bool:
        """Remember a peer for the connection log.

        Returns:
            False where the allocation has had too many: what is not logged is not relayed.
        """
        if peer not in self.peers:
            if len(self.peers) >= peers_max:
                return False
            self.peers.add(peer)
            self.peers_unreported.append(peer)
        return True
