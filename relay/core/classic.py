"""Classic STUN, without a magic cookie, where it is told that it is not spoken here.

Over UDP and streams such a message gets silence: it may be anybody's, and of any protocol. Over
DTLS both are known, and a request is refused (RFC 8489 section 11, RFC 7350 section 3).
"""

from __future__ import annotations

from relay.core.addresses import MAGIC_COOKIE
from relay.core.attributes import ERROR_CODE
from relay.core.error_codes import SERVER_ERROR
from relay.core.stun import CLASS_MASK, ERROR, HEADER_LENGTH, error_code_encode

_NOT_A_REQUEST = 0xC000 | CLASS_MASK
_REFUSAL = error_code_encode(SERVER_ERROR)
_ATTRIBUTE = ERROR_CODE.to_bytes(2, "big") + len(_REFUSAL).to_bytes(2, "big") + _REFUSAL


def classic_refusal(message: bytes | memoryview) -> bytes | None:
    """The answer to a request without the magic cookie, as its sender would know it.

    Returns:
        A 500 with the request's 16 bytes of transaction id; None for any other message.
    """
    if len(message) < HEADER_LENGTH or message[4:8] == MAGIC_COOKIE:
        return None
    message_type = int.from_bytes(message[:2], "big")
    length = int.from_bytes(message[2:4], "big")
    if message_type & _NOT_A_REQUEST or HEADER_LENGTH + length != len(message):
        return None
    head = (message_type | ERROR).to_bytes(2, "big") + len(_ATTRIBUTE).to_bytes(2, "big")
    return head + bytes(message[4:HEADER_LENGTH]) + _ATTRIBUTE
