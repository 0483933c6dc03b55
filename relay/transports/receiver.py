"""Data of peers that a ring receives, on its way to the clients.

slot │ ... who sent it │ data ...        as the kernel filled it
     │     ...  header │ data ...        as it is sent on: ChannelData, nothing is copied
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from relay.core.addresses import FAMILY_IPV4, FAMILY_IPV6, SPOOFABLE_TRANSPORT, SockAddress
from relay.core.allocation import Allocation, Channel
from relay.core.channeldata import CHANNELDATA_HEADER, HEADER_LENGTH
from relay.core.turn import DROPPED, TurnServer
from relay.transports.batches import SLOT_BYTES, name_decode
from relay.transports.rings import (
    CQE_BUFFER,
    CQE_FILLED,
    CQE_MORE,
    CQE_SLOT_SHIFT,
    ENTRIES_MASK,
    NAME_LENGTHS,
    RECEIVES,
    SEND,
    SEND_FLAGS,
    SEND_PLACES,
    SLOT_NAME_AT,
    Completion,
    Ring,
    route_make,
)
from relay.transports.sending import message_send

ROUNDS_MAX = 64
AGAIN_MAX = 16  # so many sockets are told again to receive after a round
NAME_USED_IPV4 = 8  # family, port and address; the rest of struct sockaddr_in is empty

# Passes on what has no channel: allocation, data, peer, now. Returns whether it was allowed.
Indicate = Callable[[Allocation, bytes, SockAddress, float], bool]


class Receiving(NamedTuple):
    """A relayed socket that receives.

    Attributes:
        allocation: whose it is.
        name_end: where in a slot ends what says something of the sender.
        data_at: where in a slot the data begins.
        channels: those that have received, by what the kernel calls the peer.
        descriptor: the socket's.
    """

    allocation: Allocation
    name_end: int
    data_at: int
    channels: dict[bytes, Channel]
    descriptor: int


class RingReceiver:
    """Takes what the relayed sockets have received, and passes it on.

    Attributes:
        endpoints: the descriptors of the UDP sockets that clients are reached from, by address.
    """

    def __init__(
        self, ring: Ring, turn: TurnServer, indicate: Indicate, clock: Callable[[], float]
    ) -> None:
        self.endpoints: dict[SockAddress, int] = {}
        self._ring = ring
        self._turn = turn
        self._indicate = indicate
        self._clock = clock
        self._slots = memoryview(ring.slots)
        self._receiving: dict[int, Receiving] = {}  # by token
        self._stopped: deque[int] = deque()  # tokens of those that are to receive again

    def open(self, descriptor: int, allocation: Allocation, family: int) -> None:
        """Begin to receive from a relayed socket."""
        name_length = NAME_LENGTHS[family == FAMILY_IPV6]
        name_used = NAME_USED_IPV4 if family == FAMILY_IPV4 else name_length
        receiving = Receiving(
            allocation, SLOT_NAME_AT + name_used, SLOT_NAME_AT + name_length, {}, descriptor
        )
        token = token_of(allocation, family)
        self._receiving[token] = receiving
        self._ring.receive_from(descriptor, token, name_length)

    def close(self, allocation: Allocation, family: int) -> None:
        """End it; the socket itself is closed already."""
        token = token_of(allocation, family)
        del self._receiving[token]
        self._ring.receive_end(token)

    def close_all(self) -> None:
        """End them all; the sockets are closed already."""
        for token in self._receiving:
            self._ring.receive_end(token)
        self._receiving.clear()

    def leave(self) -> None:
        """See that the event loop comes back for what there is still to do."""
        if self._ring.has_work or self._stopped:
            self._ring.wake()

    def receive(self, ends_at: float) -> int:
        """Take what there is until a time; how many datagrams were passed on."""
        ring, taken = self._ring, 0
        for _ in range(ROUNDS_MAX):
            now = self._clock()
            if ring.has_work:
                taken += self._round(now)
            self._receive_again()
            if now >= ends_at or not (ring.has_left or self._stopped):
                break
        return taken

    def _receive_again(self) -> None:
        """Have some of those that stopped receive again, as far as there are slots."""
        for _ in range(min(len(self._stopped), AGAIN_MAX)):
            token = self._stopped.popleft()
            receiving = self._receiving.get(token)
            if receiving is not None:
                name_length = receiving.data_at - SLOT_NAME_AT
                if not self._ring.receive_from(receiving.descriptor, token, name_length):
                    break

    def _round(self, now: float) -> int:
        """Take what the ring has gathered; how many datagrams were passed on."""
        ring, find, forward = self._ring, self._receiving.get, self._turn.forward_from_peer
        slots, slots_at, entries, places = ring.slots, ring.slots_at, ring.entries, SEND_PLACES
        write, pack = CHANNELDATA_HEADER.pack_into, SEND.pack_into
        senders: dict[int, Receiving] = {}  # by slot
        completions = ring.gather()
        used, taken, tail = 0, 0, ring.tail  # the ring's is of what the kernel has been told
        try:
            for token, length, flags in completions:
                if flags & CQE_FILLED != CQE_FILLED and not self._stop(token, flags):
                    continue
                used += 1
                receiving = find(token)
                if receiving is None:  # closed meanwhile
                    continue
                allocation, name_end, data_at, channels, _ = receiving
                slot_at = (slot := flags >> CQE_SLOT_SHIFT) * SLOT_BYTES
                name = slots[slot_at + SLOT_NAME_AT : slot_at + name_end]
                length, data_at = length - data_at, slot_at + data_at
                number = forward(allocation, channels.get(name), slots, data_at, length, now)
                route = allocation.client_route
                if number <= 0 or route is None:
                    if number != DROPPED:
                        taken -= self._submit(tail - ring.tail, senders)
                        taken += self._pass_on(receiving, name, number, data_at, length, now)
                        tail = ring.tail
                    continue
                data_at -= HEADER_LENGTH
                write(slots, data_at, number, length)
                length += HEADER_LENGTH
                endpoint, client_at, _ = route
                pack(
                    entries,
                    places[tail & ENTRIES_MASK],
                    endpoint,
                    client_at,
                    slots_at + data_at,
                    length,
                    SEND_FLAGS,
                    slot,
                )
                senders[slot] = receiving
                tail += 1
                allocation.client_sent_bytes += length
                taken += 1
        finally:
            used += self._skip(completions)
            taken -= self._submit(tail - ring.tail, senders)
            ring.slots_return(used)
        return taken

    def _skip(self, rest: Iterable[Completion]) -> int:
        """What a fault has left: it may cost datagrams, and no slot and no socket for good."""
        filled = (flags & CQE_FILLED == CQE_FILLED or self._stop(t, flags) for t, _, flags in rest)
        return sum(filled)

    def _stop(self, token: int, flags: int) -> bool:
        """A socket may have stopped receiving: of an error, an empty datagram, or no slot left.

        Returns:
            Whether there is a datagram nevertheless.
        """
        if not flags & CQE_MORE and token >= RECEIVES:
            self._stopped.append(token)
        return bool(flags & CQE_BUFFER)

    def _submit(self, count: int, senders: Mapping[int, Receiving]) -> int:
        """Have ChannelData sent; how many of these messages the kernel did not take."""
        completions = self._ring.submit(count) if count > 0 else ()
        failed = [slot for slot, _, _ in completions if slot in senders]
        for slot in failed:
            receiving = senders[slot]
            at = slot * SLOT_BYTES + receiving.data_at - HEADER_LENGTH
            _, length = CHANNELDATA_HEADER.unpack_from(self._slots, at)
            receiving.allocation.client_sent_bytes -= HEADER_LENGTH + length
            self._turn.dropped["client unreachable"] += 1
        return len(failed)

    def _pass_on(
        self, receiving: Receiving, name: bytes, number: int, at: int, length: int, now: float
    ) -> bool:
        """Pass on what no order is written for; whether it was passed on.

        That is what comes first, what has no channel, and what goes over a stream or DTLS.
        """
        allocation, channels = receiving.allocation, receiving.channels
        peer = channels[name].peer if number else name_decode(name)
        if not number:
            channel = allocation.channel_by_peer.get(peer)
            number = self._turn.forward_from_peer(allocation, channel, self._slots, at, length, now)
            if channel is not None and number > 0:
                if len(channels) >= len(allocation.channels):
                    channels.clear()  # some of them are no more
                channels[name] = channel
        if number == DROPPED:
            return False
        send = allocation.client_send
        if not number or send is None:
            return self._indicate(allocation, bytes(self._slots[at : at + length]), peer, now)
        CHANNELDATA_HEADER.pack_into(self._slots, at - HEADER_LENGTH, number, length)
        message = self._slots[at - HEADER_LENGTH : at + length]
        if not message_send(self._turn, allocation, send, message):
            return False
        endpoint = self.endpoints.get(allocation.five_tuple.server)
        if endpoint is not None and allocation.transport == SPOOFABLE_TRANSPORT:
            allocation.client_route = route_make(endpoint, allocation.client)
        return True


def token_of(allocation: Allocation, family: int) -> int:
    """What names a relayed socket: never another one, as descriptors do."""
    return RECEIVES | allocation.id << 1 | (family == FAMILY_IPV6)
