"""TCP allocations (RFC 6062): Connect, ConnectionBind, and what happens at the peers' side."""

from __future__ import annotations

from relay.core import attributes, stun
from relay.core.addresses import (
    FiveTuple,
    SockAddress,
    host_family,
    host_pack,
    xor_address_encode,
)
from relay.core.allocation import TCP_PROTOCOL, Allocation
from relay.core.connections import CONNECTION_ID_LENGTH, PeerConnection
from relay.core.effects import (
    BindConnection,
    CloseConnection,
    ConnectPeer,
    Effect,
    SendToClient,
)
from relay.core.error_codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    CONNECTION_ALREADY_EXISTS,
    CONNECTION_TIMEOUT_OR_FAILURE,
    FORBIDDEN,
    INSUFFICIENT_CAPACITY,
    WRONG_CREDENTIALS,
)
from relay.core.requests.exchange import (
    Exchange,
    RequestRefusedError,
    allocation_of,
    peer_check,
    peer_read,
    success,
)
from relay.core.stun import StunMessage, error_code_encode
from relay.core.tables import AllocationTable

MEDIA_ONLY = "the project is for media only"


def connect(table: AllocationTable, exchange: Exchange) -> list[Effect]:
    """Connect (section 5.2): answered once the peer has accepted, or has not."""
    allocation = allocation_of(exchange)
    value = exchange.message.values.get(attributes.XOR_PEER_ADDRESS)
    if allocation.protocol != TCP_PROTOCOL or value is None:
        raise RequestRefusedError(BAD_REQUEST)
    if _is_for_media_only(table, allocation):
        raise RequestRefusedError(FORBIDDEN, MEDIA_ONLY)
    peer = peer_read(value, exchange.message)
    peer_check(table, allocation, peer, port=peer.port)
    sockaddr = peer.sockaddr
    if table.connections.exists(allocation, sockaddr):
        raise RequestRefusedError(CONNECTION_ALREADY_EXISTS)
    if not table.connections.have_room(allocation) or not allocation.peer_note(
        sockaddr, table.settings.peers_max
    ):
        raise RequestRefusedError(INSUFFICIENT_CAPACITY)
    request = exchange.message, exchange.user.key
    return [ConnectPeer(table.connections.begin(allocation, sockaddr, request, exchange.now))]


def _is_for_media_only(table: AllocationTable, allocation: Allocation) -> bool:
    """Whether its project may have no TCP allocation any more: it is about to end."""
    return table.entitlements.project_limits(allocation.owner).media_only


def connection_of(table: AllocationTable, message: StunMessage) -> PeerConnection | None:
    """The connection that a request names."""
    return table.connections.find(message.values.get(attributes.CONNECTION_ID, b""))


def connection_bind(table: AllocationTable, exchange: Exchange) -> list[Effect]:
    """ConnectionBind (section 5.4): this client connection carries the data of one peer."""
    value = exchange.message.values.get(attributes.CONNECTION_ID)
    if value is None or len(value) != CONNECTION_ID_LENGTH:
        raise RequestRefusedError(BAD_REQUEST)
    if not exchange.five_tuple.is_stream:
        raise RequestRefusedError(BAD_REQUEST)
    connection = connection_of(table, exchange.message)
    if connection is None or connection.request is not None or connection.client is not None:
        raise RequestRefusedError(BAD_REQUEST)
    if table.find(exchange.five_tuple) is not None or exchange.five_tuple in table.moving:
        raise RequestRefusedError(ALLOCATION_MISMATCH)
    if connection.allocation.username != exchange.user.username:
        raise RequestRefusedError(WRONG_CREDENTIALS)
    table.connections.bind(connection, exchange.five_tuple)
    return [success(exchange, []), BindConnection(connection, exchange.five_tuple)]


def peer_connected(table: AllocationTable, connection: PeerConnection, now: float) -> list[Effect]:
    """The peer of a Connect request has accepted."""
    if connection.id not in table.connections.by_id:
        return []
    table.connections.wait(connection, now)
    return [_connect_answer(connection, stun.SUCCESS, (attributes.CONNECTION_ID, connection.value))]


def connection_lost(table: AllocationTable, connection: PeerConnection) -> list[Effect]:
    """Peer or client have closed it, could not be reached, or have made us wait too long."""
    if connection.id not in table.connections.by_id:
        return []
    table.connections.remove(connection)
    close = CloseConnection(connection)
    if connection.request is None:
        return [close]
    code = error_code_encode(CONNECTION_TIMEOUT_OR_FAILURE, explained=True)
    failure = attributes.ERROR_CODE, code
    return [close, _connect_answer(connection, stun.ERROR, failure)]


def family_lost(table: AllocationTable, allocation: Allocation, family: int) -> list[Effect]:
    """The relayed address of one family is given up: so are its connections with peers."""
    return [
        effect
        for connection in table.connections.of_allocation(allocation)
        if host_family(connection.peer[0]) == family
        for effect in connection_lost(table, connection)
    ]


def _connect_answer(
    connection: PeerConnection, message_class: int, value: tuple[int, bytes]
) -> SendToClient:
    assert connection.request is not None, "a Connect request is answered once"
    message, key = connection.request
    connection.request = None
    datagram = stun.stun_answer(message, message_class, [value], key)
    return SendToClient(connection.allocation.five_tuple, datagram, connection.allocation)


def peer_accepted(
    table: AllocationTable,
    allocation: Allocation,
    peer: SockAddress,
    transaction_id: bytes,
    now: float,
) -> tuple[PeerConnection, SendToClient] | None:
    """A peer has connected to a relayed address (section 5.3).

    Returns:
        The connection, and the ConnectionAttempt for the client; None where the peer has no
        permission or the policy none for it, or the project is for media only: it is to be closed
        at once.
    """
    if (
        not allocation.permission_is_live(peer[0], now)
        or _is_for_media_only(table, allocation)
        or table.policy.refusal(host_pack(peer[0]), peer[1]) is not None
        or table.connections.exists(allocation, peer)
        or not table.connections.have_room(allocation)
        or not allocation.peer_note(peer, table.settings.peers_max)
    ):
        return None
    connection = table.connections.begin(allocation, peer, None, now)
    values = [
        (attributes.CONNECTION_ID, connection.value),
        (attributes.XOR_PEER_ADDRESS, xor_address_encode(peer, transaction_id)),
    ]
    datagram = stun.stun_encode(stun.CONNECTION_ATTEMPT | stun.INDICATION, transaction_id, values)
    return connection, SendToClient(allocation.five_tuple, datagram, allocation)


def data_client_lost(table: AllocationTable, five_tuple: FiveTuple) -> list[Effect]:
    """A client's connection is gone: the peer's one goes with it."""
    return connection_lost(table, table.connections.by_client[five_tuple])
