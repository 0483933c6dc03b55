"""Third-party authorization (RFC 7635 section 7): is this token good, and whose request is it?

    kid (USERNAME) ──▶ key and project      ACCESS-TOKEN ──key──▶ mac_key, time
                                            mac_key covers the request

An unknown key id, a token under another key or for another server, one that was tampered with and a
forged integrity get the same answer after the same work: one opening, and one HMAC (SHA-256) or
three (SHA-1, which has more than one key of a mac_key, see below).
"""

from __future__ import annotations

import hashlib
from math import ceil
from typing import NamedTuple

from relay.core import attributes
from relay.core.access_tokens import (
    DELTA_SECONDS,
    MAC_KEY_LENGTH_COTURN,
    ThirdParty,
    token_credential,
)
from relay.core.credentials import TurnUsername
from relay.core.effects import AuthenticationOutcome
from relay.core.integrity import SHA1_INTEGRITY
from relay.core.stun import StunMessage

# What stands in for what is not there, so that its lack costs no less. What they open or cover is
# refused all the same.
_NO_KEY = bytes(32)
_NO_MAC_KEY = bytes(20)


class TokenVerdict(NamedTuple):
    """How a token and the request that carries it were judged.

    Attributes:
        outcome: ACCEPTED where all of it is in order.
        credential: whose request it is, as a username says it; None where that is not proven.
        mac_key: what covers the request and its answer, where that is proven.
        ends_at: unix seconds; no allocation may be told a lifetime beyond it.
    """

    outcome: AuthenticationOutcome
    credential: TurnUsername | None = None
    mac_key: bytes = b""
    ends_at: float = 0.0


def token_judge(
    message: StunMessage, kid: str, third_party: ThirdParty, unix_now: float
) -> TokenVerdict:
    """Judge a request that carries ACCESS-TOKEN.

    Args:
        message: the request.
        kid: its USERNAME.
        third_party: our name, and the keys.
        unix_now: the time of day, unix seconds.
    """
    value = message.values[attributes.ACCESS_TOKEN]
    key = third_party.key(kid)
    token = third_party.open(_NO_KEY if key is None else key.key, value)
    mac_key = _matching_key(message, _NO_MAC_KEY if token is None else token.mac_key)
    if key is None:
        return TokenVerdict(AuthenticationOutcome.UNKNOWN_USER)
    if token is None or mac_key is None:
        return TokenVerdict(AuthenticationOutcome.WRONG_PASSWORD)
    expires_at = ceil(token.issued_at) + token.lifetime_seconds + DELTA_SECONDS
    live = token.is_live(unix_now)
    return TokenVerdict(
        AuthenticationOutcome.ACCEPTED if live else AuthenticationOutcome.EXPIRED,
        TurnUsername(expires_at, key.project, token_credential(value), kid),
        mac_key,
        unix_now + token.seconds_left(unix_now),
    )


def _matching_key(message: StunMessage, mac_key: bytes) -> bytes | None:
    """What of the mac_key covers the message; None where nothing of it does.

    HMAC-SHA1 has a key of 160 bits (section 6.2). Of a mac_key for SHA-256 a client that is offered
    SHA-1 alone takes the SHA-1 (appendix B); of any, coturn's takes 16 bytes.
    """
    keys = [mac_key]
    if message.integrity is SHA1_INTEGRITY:
        hashed = hashlib.sha1(mac_key, usedforsecurity=False).digest()
        keys = [mac_key[:MAC_KEY_LENGTH_COTURN], hashed, mac_key]
    found = None
    for key in keys:  # every one is tried, whichever it is
        if message.integrity_verify(key):
            found = key
    return found
