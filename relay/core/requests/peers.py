"""CreatePermission, ChannelBind and Send (RFC 8656 sections 10 to 12)."""

from __future__ import annotations

from relay.core import attributes
from relay.core.addresses import FAMILY_IPV4, PeerAddress, host_family, xor_address_decode
from relay.core.allocation import UDP_PROTOCOL, Allocation
from relay.core.channeldata import CHANNEL_MIN
from relay.core.effects import Effect, SendToPeer
from relay.core.error_codes import BAD_REQUEST, FORBIDDEN, INSUFFICIENT_CAPACITY
from relay.core.requests.exchange import (
    Exchange,
    RequestRefusedError,
    allocation_of,
    family_check,
    peer_check,
    peer_read,
    success,
)
from relay.core.stun import StunMessage
from relay.core.tables import AllocationTable

DATAGRAM_TRANSPORTS = ("udp", "dtls")


def create_permission(table: AllocationTable, exchange: Exchange) -> list[Effect]:
    """CreatePermission (section 10.2): all addresses of the request or none."""
    allocation = allocation_of(exchange)
    raw = exchange.message.repeated(attributes.XOR_PEER_ADDRESS)
    if not raw:
        raise RequestRefusedError(BAD_REQUEST)
    peers = [peer_read(value, exchange.message) for value in raw]
    for peer in peers:
        family_check(allocation, peer)
    for peer in peers:
        peer_check(table, allocation, peer, port=None)
    hosts = {peer.sockaddr[0] for peer in peers}
    if not allocation.permissions_have_room(hosts, table.settings, exchange.now):
        raise RequestRefusedError(INSUFFICIENT_CAPACITY)
    for host in hosts:
        allocation.permission_install(
            host, exchange.now + table.settings.permission_lifetime_seconds
        )
    return [success(exchange, [])]


def channel_bind(table: AllocationTable, exchange: Exchange) -> list[Effect]:
    """ChannelBind (section 12.2): binds or refreshes, and installs the permission."""
    allocation = allocation_of(exchange)
    if allocation.protocol != UDP_PROTOCOL:
        raise RequestRefusedError(FORBIDDEN)  # RFC 6062 section 3: no data, so no channels
    settings, now = table.settings, exchange.now
    number, peer = _binding_read(table, exchange)
    sockaddr = peer.sockaddr
    if allocation.channel_conflicts(number, sockaddr, now):
        raise RequestRefusedError(BAD_REQUEST)
    peer_check(table, allocation, peer, port=peer.port)
    if not (
        allocation.channels_have_room(number, settings, now)
        and allocation.permissions_have_room({sockaddr[0]}, settings, now)
    ):
        raise RequestRefusedError(INSUFFICIENT_CAPACITY)
    allocation.channel_bind(number, sockaddr, now + settings.channel_lifetime_seconds)
    allocation.permission_install(sockaddr[0], now + settings.permission_lifetime_seconds)
    return [success(exchange, [])]


def _binding_read(table: AllocationTable, exchange: Exchange) -> tuple[int, PeerAddress]:
    """The channel number and the peer."""
    values = exchange.message.values
    number_value = values.get(attributes.CHANNEL_NUMBER)
    peer_value = values.get(attributes.XOR_PEER_ADDRESS)
    if number_value is None or len(number_value) != 4 or peer_value is None:
        raise RequestRefusedError(BAD_REQUEST)
    number = int.from_bytes(number_value[:2], "big")
    if not CHANNEL_MIN <= number <= table.settings.channel_number_max:
        raise RequestRefusedError(BAD_REQUEST)
    return number, peer_read(peer_value, exchange.message)


def send_indication(
    table: AllocationTable, allocation: Allocation, message: StunMessage, now: float
) -> SendToPeer | None:
    """Send (section 11.2): None where it is dropped; the policy is asked again here.

    Raises:
        MalformedMessageError: XOR-PEER-ADDRESS that cannot be read.
    """
    data = message.values.get(attributes.DATA)
    peer_value = message.values.get(attributes.XOR_PEER_ADDRESS)
    if data is None or peer_value is None or message.unknown_required():
        return None
    peer = xor_address_decode(peer_value, message.transaction_id)
    sockaddr = peer.sockaddr
    if (
        allocation.protocol != UDP_PROTOCOL
        or not allocation.permission_is_live(sockaddr[0], now)
        or table.policy.refusal(peer.packed, peer.port) is not None
        or peer.family not in allocation.relayed
        or allocation.is_own(sockaddr)
        or not allocation.peer_note(sockaddr, table.settings.peers_max)
    ):
        return None
    dont_fragment = attributes.DONT_FRAGMENT in message.values and _may_fragment(allocation, peer)
    return SendToPeer(allocation, data, sockaddr, dont_fragment)


def _may_fragment(allocation: Allocation, peer: PeerAddress) -> bool:
    """Whether DONT-FRAGMENT counts: from IPv4 or a stream, not from IPv6 datagrams, and not from
    one family to the other (sections 13 to 15)."""
    if allocation.transport not in DATAGRAM_TRANSPORTS:
        return True
    return peer.family == host_family(allocation.client[0]) == FAMILY_IPV4
