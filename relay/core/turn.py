"""The TURN server (RFC 8656): bytes and the time go in, effects come out.

    datagram ──▶ first two bits ──01──▶ ChannelData: `forward_from_client`, no object made
                        └──00──▶ STUN: Binding is answered; requests are authenticated and looked up
                                 in `requests.methods`; Send indications are judged

No socket, no clock, no randomness of its own: whoever runs it brings them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from relay.core import attributes, stun
from relay.core.addresses import FiveTuple, SockAddress
from relay.core.allocation import Allocation, Channel
from relay.core.authentication import (
    Accepted,
    Refused,
    authenticate,
    holder_of,
    refresh_allowed,
)
from relay.core.challenge import Values, challenge_values
from relay.core.channeldata import HEADER_LENGTH, PADDING_MAX
from relay.core.connections import PeerConnection
from relay.core.control import Control
from relay.core.effects import (
    AllocationEnded,
    Authenticated,
    CloseRelayed,
    CloseReserved,
    Effect,
    SendToClient,
)
from relay.core.error_codes import BAD_REQUEST, UNKNOWN_ATTRIBUTE
from relay.core.errors import MalformedMessageError
from relay.core.gate import Buffer
from relay.core.guard import Guard
from relay.core.holdings import Holdings
from relay.core.nonce import FEATURE_PASSWORD_ALGORITHMS, FEATURE_USERNAME_ANONYMITY
from relay.core.replacement import Enforcement, settings_replace
from relay.core.requests import tcp
from relay.core.requests.binding import binding, error_answer, unknown_attributes
from relay.core.requests.exchange import Exchange, RequestRefusedError, acceptance
from relay.core.requests.indications import data_indication, icmp_value
from relay.core.requests.methods import methods_of
from relay.core.requests.mobility import (
    client_lost,
    is_move_asked,
    move_finish,
    ticket_holder,
)
from relay.core.requests.opening import Openings
from relay.core.requests.peers import send_indication
from relay.core.settings import TurnSettings
from relay.core.stun import StunMessage, stun_decode
from relay.core.tables import AllocationTable
from relay.core.usernames import Usernames

DROPPED = -1  # in the place of a channel number


class TurnServer:
    """One TURN server.

    Attributes:
        table: the live allocations.
        control: revokes, limits and ends while the server runs.
        dropped: why datagrams were dropped, and how many; a fixed set of reasons.
        guard: the limits on answers and data, and what was refused.
        usernames: those that clients may send the hash of.
    """

    def __init__(
        self,
        settings: TurnSettings,
        random_bytes: Callable[[int], bytes],
        holdings: Holdings | None = None,
    ) -> None:
        self.settings = settings
        self.table = AllocationTable(settings, random_bytes, holdings)
        self.control = Control(self.table, holdings)
        self.dropped: Counter[str] = Counter()
        self.guard = Guard(settings, self.dropped)
        self._random_bytes = random_bytes
        self.usernames = Usernames(settings.realm, settings.usernames_max)
        self._openings = Openings(self.table, self.guard)
        self._methods = methods_of(settings, self._openings)

    def settings_replace(self, settings: TurnSettings) -> Enforcement:
        """Work by other settings from now on; see `replacement.settings_replace`."""
        enforcement = settings_replace(self.table, self.guard, self.control, settings)
        self.settings = settings
        self._methods = methods_of(settings, self._openings)
        return enforcement

    @property
    def unix_offset_seconds(self) -> float:
        """What to add to `now` for the time of day.

        `now` only has to be steady: lifetimes are measured with it. Credentials and nonces end by
        the time of day.
        """
        return self.table.entitlements.unix_offset_seconds

    @unix_offset_seconds.setter
    def unix_offset_seconds(self, seconds: float) -> None:
        self.table.entitlements.unix_offset_seconds = seconds

    @property
    def _features(self) -> int:
        anonymity = FEATURE_USERNAME_ANONYMITY if self.usernames.by_hash else 0
        return FEATURE_PASSWORD_ALGORITHMS | anonymity

    @property
    def _understood(self) -> frozenset[int]:
        tokens = self.settings.third_party is not None
        return attributes.UNDERSTOOD_WITH_TOKENS if tokens else attributes.UNDERSTOOD

    # --- the fast lane ----------------------------------------------------------------------------

    def forward_from_client(
        self,
        allocation: Allocation,
        number: int,
        data_length: int,
        buffer: Buffer,
        length: int,
        now: float,
    ) -> Channel | None:
        """Judge a ChannelData message of the client that holds `allocation`.

        Args:
            allocation: the one on the message's five-tuple.
            number: the channel that its header names.
            data_length: how long its data is, says the header.
            buffer: the message is its first `length` bytes, the data is behind the header.
            length: of the message with its padding, in bytes.
            now: the time.

        Returns:
            The channel to whose peer the data goes; None where it is dropped.
        """
        channel = allocation.channels.get(number)
        if channel is None or channel.usable_until <= now:
            self.dropped["no channel"] += 1
            return None
        if not HEADER_LENGTH <= length - data_length <= HEADER_LENGTH + PADDING_MAX:
            self.dropped["malformed"] += 1
            return None
        if not channel.peer_noted and not self._peer_note(allocation, channel):
            return None
        gate = allocation.gate
        if gate is not None:
            refusal = gate.from_client.refusal(buffer, HEADER_LENGTH, data_length, now)
            if refusal is not None:
                self.guard.drop(allocation, refusal)
                return None
        allocation.client_received_bytes += length
        allocation.client_received_packets += 1
        return channel

    def forward_from_peer(
        self,
        allocation: Allocation,
        channel: Channel | None,
        buffer: Buffer,
        at: int,
        length: int,
        now: float,
    ) -> int:
        """Judge data of a peer that may have a channel.

        Args:
            allocation: whose relayed address it came to.
            channel: what was bound to the peer last, if anything.
            buffer: the data is in it.
            at: where it begins.
            length: of the data, in bytes.
            now: the time.

        Returns:
            The channel's number; 0 where there is none; DROPPED.
        """
        if channel is None or channel.usable_until <= now:
            return 0
        if not channel.peer_noted and not self._peer_note(allocation, channel):
            return DROPPED
        gate = allocation.gate
        if gate is not None:
            refusal = gate.from_peer.refusal(buffer, at, length, now)
            if refusal is not None:
                self.guard.drop(allocation, refusal)
                return DROPPED
        allocation.peer_received_bytes += length
        allocation.peer_received_packets += 1
        return channel.number

    # --- everything else --------------------------------------------------------------------------

    def receive_from_client(
        self, datagram: bytes, five_tuple: FiveTuple, now: float
    ) -> list[Effect]:
        """Take in one STUN message of a client.

        Returns:
            What is to be done, in this order; nothing for what is dropped.
        """
        if self.table.is_relayed(five_tuple):
            # A relayed address as a client would let two allocations feed each other for ever.
            self.dropped["relayed address as client"] += 1
            return []
        try:
            message = stun_decode(datagram)
            self.guard.received[message.method, message.message_class] += 1
            if message.message_class == stun.REQUEST:
                return self._request(message, len(datagram), five_tuple, now)
            if message.message_class == stun.INDICATION and message.method == stun.SEND:
                moved = self.moved_here(five_tuple)
                return moved + self._send_indication(message, len(datagram), five_tuple, now)
        except MalformedMessageError:
            self.dropped["malformed"] += 1
        return []

    def receive_from_peer(
        self, allocation: Allocation, data: bytes, peer: SockAddress, now: float
    ) -> SendToClient | None:
        """Data of a peer that has no channel becomes a Data indication (section 11.3), or None."""
        if self._is_adrift(allocation):
            return None
        if not allocation.permission_is_live(peer[0], now):
            self.dropped["no permission"] += 1
            return None
        if not allocation.peer_note(peer, self.settings.peers_max):
            self.dropped["too many peers"] += 1
            return None
        if self.guard.drops_from_peer(allocation, data, now):
            return None
        allocation.peer_received_bytes += len(data)
        allocation.peer_received_packets += 1
        return data_indication(allocation, peer, (attributes.DATA, data), self._random_bytes(12))

    def receive_icmp(
        self,
        allocation: Allocation,
        peer: SockAddress,
        icmp: tuple[int, int, int],
        now: float,
    ) -> SendToClient | None:
        """An ICMP error about data sent to `peer` becomes a Data indication (section 11.5).

        Args:
            allocation: from whose relayed address the data was sent.
            peer: whom it was sent to, not who reports the error.
            icmp: type, code, and the MTU where the type has one.
            now: the time.
        """
        value = icmp_value(peer, icmp)
        if value is None or self._is_adrift(allocation):
            return None
        if not allocation.permission_is_live(peer[0], now):
            self.dropped["no permission"] += 1
            return None
        return data_indication(allocation, peer, value, self._random_bytes(12))

    def relayed_opened(self, allocation: Allocation, now: float) -> list[Effect]:
        """The relayed socket that was asked for is open."""
        effects = self._openings.opened(allocation, now)
        if allocation.cut_at <= self.table.entitlements.unix(now):  # its credential ended meanwhile
            effects += self.control.session_end(allocation.id)
        return effects

    def relayed_failed(
        self, allocation: Allocation, now: float, *, another_may_do: bool
    ) -> list[Effect]:
        """The relayed socket could not be opened: try another port, or do without it.

        Args:
            allocation: whose socket it was to be.
            now: the time.
            another_may_do: the port was the fault (something else on this host has it), not a
                want of descriptors or memory.
        """
        return self._openings.failed(allocation, now, another_may_do=another_may_do)

    def _is_adrift(self, allocation: Allocation) -> bool:
        """Whether it has no client at the moment; data with a channel, too, ends here then."""
        if allocation.id not in self.table.adrift:
            return False
        self.dropped["client unreachable"] += 1
        return True

    def peer_connected(self, connection: PeerConnection, now: float) -> list[Effect]:
        """A TCP connection that was asked for stands."""
        return tcp.peer_connected(self.table, connection, now)

    def peer_accepted(
        self, allocation: Allocation, peer: SockAddress, now: float
    ) -> tuple[PeerConnection, SendToClient] | None:
        """A peer has connected; None where it is to be closed at once."""
        accepted = tcp.peer_accepted(self.table, allocation, peer, self._random_bytes(12), now)
        if accepted is None:
            self.dropped["connection refused"] += 1
        return accepted

    def connection_lost(self, connection: PeerConnection) -> list[Effect]:
        """A TCP connection with a peer could not be made, or is over."""
        return tcp.connection_lost(self.table, connection)

    def client_lost(self, five_tuple: FiveTuple) -> list[Effect]:
        """The client's connection is gone, so its five-tuple is: end what hung on it."""
        if five_tuple in self.table.connections.by_client:
            return tcp.data_client_lost(self.table, five_tuple)
        return client_lost(self.table, five_tuple)

    def next_deadline(self) -> float | None:
        """When `handle_deadline` wants to be called; None where nothing waits."""
        deadlines = (
            self.table.next_deadline(),
            self.table.entitlements.next_cut(),
            self.control.next_drain_end(),
            self.guard.refusals.next_purge(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_deadline(self, now: float) -> list[Effect]:
        """End what has expired, and forget what is too old."""
        self.guard.refusals.purge_if_due(now)
        expired: list[Effect] = []
        for allocation, relayed in self.table.expired(now):
            if relayed is None:
                expired.append(AllocationEnded(allocation))
            else:
                expired += tcp.family_lost(self.table, allocation, relayed.family)
                expired.append(CloseRelayed(allocation, relayed))
        waited = [
            effect
            for connection in self.table.connections.expired(now)
            for effect in tcp.connection_lost(self.table, connection)
        ]
        unclaimed = map(CloseReserved, self.table.reservations_expired(now))
        cut, drained = self.control.cut(now), self.control.drain_end(now)
        return [*expired, *waited, *unclaimed, *cut, *drained]

    def end_all(self) -> list[Effect]:
        """End every allocation: the server stops."""
        ended = list(self.table.by_id.values())
        for allocation in ended:
            self.table.remove(allocation)
        reserved = self.table.reservations_end()
        return [*map(AllocationEnded, ended), *map(CloseReserved, reserved)]

    # --- requests ---------------------------------------------------------------------------------

    def _request(
        self, message: StunMessage, length: int, five_tuple: FiveTuple, now: float
    ) -> list[Effect]:
        if message.method == stun.BINDING:
            silence = self.guard.silence_unproven(five_tuple, now)
            if silence is not None:
                return silence
            return [binding(message, five_tuple, self.settings.nat_discovery)]
        handler = self._methods.get(message.method)
        if handler is None:
            self.dropped["unknown method"] += 1
            return []
        answer = self.table.answers.find(five_tuple, message.transaction_id, now)
        if answer is not None:
            return [SendToClient(five_tuple, answer)]
        allocation = self._allocation(message, five_tuple)
        judged = self._authenticate(message, five_tuple, allocation, now)
        if isinstance(judged, Refused):
            return self._refuse_unauthenticated(message, length, five_tuple, judged, now)
        effects: list[Effect] = []
        if allocation is not None and not is_move_asked(message):
            effects = self._moved(allocation, five_tuple, judged)
        exchange = Exchange(message, length, five_tuple, judged, allocation, now)
        unknown = message.unknown_required(self._understood)
        if unknown:
            refusal = unknown_attributes(message, five_tuple, unknown, judged.key)
            return [*effects, *acceptance(exchange), refusal]
        try:
            effects += handler(self.table, exchange)
        except RequestRefusedError as refused:
            self.guard.note(
                message.method, refused.code, judged.owner, judged.username, refused.rule, now
            )
            refusal = error_answer(message, five_tuple, refused.code, [], judged.key)
            return [*effects, *acceptance(exchange), refusal]
        if allocation is not None:
            allocation.client_received_bytes += length
        return effects

    def _authenticate(
        self,
        message: StunMessage,
        five_tuple: FiveTuple,
        allocation: Allocation | None,
        now: float,
    ) -> Accepted | Refused:
        unix_now = self.table.entitlements.unix(now)
        try:
            judged = authenticate(
                message,
                five_tuple.client,
                holder_of(allocation),
                self.usernames.by_hash,
                self.table.entitlements,
                self.settings,
                unix_now,
            )
        except MalformedMessageError:
            return Refused(BAD_REQUEST)
        if isinstance(judged, Accepted) and allocation is not None:
            return refresh_allowed(message, judged, allocation, unix_now)
        return judged

    def _allocation(self, message: StunMessage, five_tuple: FiveTuple) -> Allocation | None:
        """The allocation that a request is about: on its five-tuple, or moving there."""
        found = self.table.find(five_tuple) or self.table.moving.get(five_tuple)
        if found is None and message.method == stun.REFRESH:
            return ticket_holder(self.table, message)
        if found is None and message.method == stun.CONNECTION_BIND:
            connection = tcp.connection_of(self.table, message)
            return None if connection is None else connection.allocation
        return found

    def _moved(self, allocation: Allocation, five_tuple: FiveTuple, user: Accepted) -> list[Effect]:
        """Finish a move with the first request from the new five-tuple."""
        if allocation.moving_to != five_tuple or allocation.username != user.username:
            return []
        return [move_finish(self.table, allocation)]

    def moved_here(self, five_tuple: FiveTuple) -> list[Effect]:
        """Data came on a five-tuple without an allocation: one may be about to move there."""
        allocation = self.table.moving.get(five_tuple)
        return [] if allocation is None else [move_finish(self.table, allocation)]

    def _peer_note(self, allocation: Allocation, channel: Channel) -> bool:
        """Write a channel's peer down at its first data; False where there were too many."""
        channel.peer_noted = allocation.peer_note(channel.peer, self.settings.peers_max)
        if not channel.peer_noted:
            self.dropped["too many peers"] += 1
        return channel.peer_noted

    def _refuse_unauthenticated(
        self,
        message: StunMessage,
        length: int,
        five_tuple: FiveTuple,
        refused: Refused,
        now: float,
    ) -> list[Effect]:
        self.guard.note(
            message.method, refused.code, refused.project, refused.username, refused.rule, now
        )
        silence = self.guard.silence_refused(five_tuple, refused, now)
        if silence is not None:
            return silence
        if refused.code == UNKNOWN_ATTRIBUTE:
            return [unknown_attributes(message, five_tuple, message.unknown_required())]
        values: Values = []
        if refused.code != BAD_REQUEST:
            unix_now = self.table.entitlements.unix(now)
            challenge = challenge_values(
                self.settings, message, length, five_tuple, self._features, unix_now
            )
            if challenge is None:  # no client asks with so little
                return self.guard.silence_small(now)
            values = challenge
        answer = error_answer(message, five_tuple, refused.code, values, None)
        if refused.outcome is None:
            return [answer]
        return [Authenticated(five_tuple, refused.outcome, refused.project), answer]

    def _send_indication(
        self, message: StunMessage, length: int, five_tuple: FiveTuple, now: float
    ) -> list[Effect]:
        allocation = self.table.find(five_tuple)
        if allocation is None:
            self.dropped["no allocation"] += 1
            return []
        effect = send_indication(self.table, allocation, message, now)
        if effect is None:
            self.dropped["send refused"] += 1
            return []
        if self.guard.drops_from_client(allocation, effect.data, now):
            return []
        allocation.client_received_bytes += length
        allocation.client_received_packets += 1
        return [effect]
