"""What 401 and 438 tell a client, so that it can ask again (RFC 8489 section 9.2.4).

Over UDP whoever really is at the address that a request names may get no more than 2.8 times what
was sent: there is no room for everything where a request is small and this server's names are long.
"""

from __future__ import annotations

from math import inf

from relay.core import attributes, stun
from relay.core.addresses import SPOOFABLE_TRANSPORT, FiveTuple
from relay.core.integrity import PASSWORD_ALGORITHMS_VALUE
from relay.core.nonce import nonce_make
from relay.core.settings import TurnSettings
from relay.core.stun import StunMessage

ANSWER_RATIO_MAX = 2.8
ERROR_CODE_LENGTH = 8  # with its header and an empty reason

Values = list[tuple[int, bytes]]


def challenge_values(
    settings: TurnSettings,
    message: StunMessage,
    request_length: int,
    five_tuple: FiveTuple,
    features: int,
    unix_now: float,
) -> Values | None:
    """The attributes beside ERROR-CODE; None where even the fewest would be too many.

    Args:
        settings: realm, nonce keys, and whose access tokens are accepted.
        message: the request.
        request_length: of it, in bytes.
        five_tuple: of it.
        features: what the nonce says that we offer.
        unix_now: the time of day, unix seconds.
    """
    # Who needs a token can do nothing without the name of this server, while all others know MD5
    # and SHA-1: it goes last. It is in 438 too, else coturn's client tries its password.
    tokens = settings.third_party
    names = ("",) if tokens is None else (tokens.server_name, "")
    # Only who has not tried yet may be told less: whose credential or nonce is not good gets the
    # algorithms, whatever else (section 9.2.4).
    has_tried = message.integrity is not None
    length_max = ANSWER_RATIO_MAX * request_length
    if five_tuple.transport != SPOOFABLE_TRANSPORT:
        length_max = inf
    for name in names:
        for offered in (features,) if has_tried else (features, None):
            nonce = nonce_make(settings.nonce_keys[0], five_tuple.client, unix_now, offered)
            made = [(attributes.REALM, settings.realm.encode()), (attributes.NONCE, nonce)]
            if offered is not None:
                made.append((attributes.PASSWORD_ALGORITHMS, PASSWORD_ALGORITHMS_VALUE))
            if name:
                made.append((attributes.THIRD_PARTY_AUTHORIZATION, name.encode()))
            if _answer_length(message, made) <= length_max:
                return made
    return None


def _answer_length(message: StunMessage, made: Values) -> int:
    length = stun.HEADER_LENGTH + ERROR_CODE_LENGTH
    if message.fingerprinted:
        length += stun.FINGERPRINT_LENGTH
    return length + sum(4 + (len(value) + 3 & ~3) for _, value in made)
