"""Data indications (RFC 8656 sections 11.3 and 11.5): what peers send, and ICMP errors about them.

The value of an ICMP attribute: 16 bits zero | type: 7 bits | code: 9 bits | MTU or zero: 32 bits
"""

from __future__ import annotations

from relay.core import attributes, stun
from relay.core.addresses import (
    FAMILY_IPV4,
    FAMILY_IPV6,
    SockAddress,
    host_family,
    xor_address_encode,
)
from relay.core.allocation import Allocation
from relay.core.effects import SendToClient

ICMP_TYPES = {FAMILY_IPV4: (3, 11), FAMILY_IPV6: (1, 2, 3)}  # section 11.5
_CODE_BITS = 9


def data_indication(
    allocation: Allocation, peer: SockAddress, value: tuple[int, bytes], transaction_id: bytes
) -> SendToClient:
    """Tell the client of `peer` what `value`, a DATA or ICMP attribute, says."""
    values = [(attributes.XOR_PEER_ADDRESS, xor_address_encode(peer, transaction_id)), value]
    datagram = stun.stun_encode(stun.DATA | stun.INDICATION, transaction_id, values)
    return SendToClient(allocation.five_tuple, datagram, allocation)


def icmp_value(peer: SockAddress, icmp: tuple[int, int, int]) -> tuple[int, bytes] | None:
    """The ICMP attribute for type, code and MTU; None for a type that clients have no use for.

    What an error without an MTU has in its place, the length of an extension say, is left out
    (section 18.13).
    """
    icmp_type, code, mtu = icmp
    family = host_family(peer[0])
    if icmp_type not in ICMP_TYPES[family]:
        return None
    number = icmp_type << _CODE_BITS | code
    error_data = mtu if _has_mtu(family, icmp_type, code) else 0
    return attributes.ICMP, number.to_bytes(4, "big") + error_data.to_bytes(4, "big")


def _has_mtu(family: int, icmp_type: int, code: int) -> bool:
    """Whether this is "packet too big", or "fragmentation needed and DF set"."""
    return icmp_type == 2 if family == FAMILY_IPV6 else (icmp_type, code) == (3, 4)
