"""What the core asks its runner to do; it does nothing by itself.

Nobody changes an effect. They are not frozen all the same: to make a frozen one takes 1 us longer,
and every allocation needs five.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from relay.core.addresses import FiveTuple, SockAddress
from relay.core.allocation import Allocation, RelayedAddress
from relay.core.connections import PeerConnection


class AuthenticationOutcome(Enum):
    """How a request that proved it can receive at its address was judged."""

    ACCEPTED = "accepted"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNKNOWN_USER = "unknown_user"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - the name of an outcome


@dataclass(slots=True)
class SendToClient:
    """Send a message to a client; `allocation` is whose bytes it counts as, if anybody's."""

    five_tuple: FiveTuple
    datagram: bytes
    allocation: Allocation | None = None


@dataclass(slots=True)
class SendToPeer:
    """Send the data of a Send indication from the relayed address of `allocation`."""

    allocation: Allocation
    data: bytes
    peer: SockAddress
    dont_fragment: bool = False


@dataclass(slots=True)
class OpenRelayed:
    """Open one relayed socket, then call `relayed_opened` or `relayed_failed`.

    Attributes:
        reserved: an address that nobody else may take from now on, until it is opened or
            `CloseReserved`; the one fails where the other does.
    """

    allocation: Allocation
    relayed: RelayedAddress
    reserved: SockAddress | None = None


@dataclass(slots=True)
class CloseRelayed:
    """Close one of two relayed sockets: the allocation lives on with the other one."""

    allocation: Allocation
    relayed: RelayedAddress


@dataclass(slots=True)
class CloseReserved:
    """Hold a reserved address no longer: nobody came for it."""

    reserved: SockAddress


@dataclass(slots=True)
class ConnectPeer:
    """Connect to a peer from the relayed address, then call `peer_connected` or
    `connection_lost`."""

    connection: PeerConnection


@dataclass(slots=True)
class BindConnection:
    """From now on all bytes of the client's connection are the peer's, and the other way round."""

    connection: PeerConnection
    client: FiveTuple


@dataclass(slots=True)
class CloseConnection:
    """Close the peer's connection and the client's data connection, whichever there are."""

    connection: PeerConnection


@dataclass(slots=True)
class AllocationStarted:
    """An allocation lives, so its user was accepted."""

    allocation: Allocation


@dataclass(slots=True)
class AllocationMoved:
    """The client of an allocation has come back from elsewhere: `previous` is its no more."""

    allocation: Allocation
    previous: FiveTuple


@dataclass(slots=True)
class AllocationEnded:
    """An allocation is over: close what it has open, write its last usage."""

    allocation: Allocation


@dataclass(slots=True)
class Authenticated:
    """An authentication event for the connection log, where no allocation began with it."""

    five_tuple: FiveTuple
    outcome: AuthenticationOutcome
    project: str | None


@dataclass(slots=True)
class Silenced:
    """A limit on answers is exceeded: one line for the log, once a minute at most."""

    limit: str
    dropped: int  # since the start


Effect = (
    SendToClient
    | SendToPeer
    | OpenRelayed
    | CloseRelayed
    | CloseReserved
    | ConnectPeer
    | BindConnection
    | CloseConnection
    | AllocationStarted
    | AllocationMoved
    | AllocationEnded
    | Authenticated
    | Silenced
)
