"""What 401 and 438 tell a client, so that it can ask again (RFC 8489 section 9.2.4).

Over UDP whoever really is at the address that a request names may get no more than 2.8 times what
was sent: there is no room for everything where a request is small and this server's names are long.
"""

from __future__ import annotations

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
) -> Values:
    """The attributes beside ERROR-CODE.

    Args:
        settings: realm, nonce keys, and whose access tokens are accepted.
        message: the request.
        request_length: of it, in bytes.
        five_tuple: of it.
        features: what the nonce says that we offer.
        unix_now: the time of day, unix seconds.
    """
    # No client sends a bare header: it gets as little as it sent, for the sake of whoever really is
    # at that address.
    usual = None if request_length == stun.HEADER_LENGTH else features

    def values(offered: int | None, server_name: str = "") -> Values:
        nonce = nonce_make(settings.nonce_keys[0], five_tuple.client, unix_now, offered)
        made = [(attributes.REALM, settings.realm.encode()), (attributes.NONCE, nonce)]
        if offered is not None:
            made.append((attributes.PASSWORD_ALGORITHMS, PASSWORD_ALGORITHMS_VALUE))
        if server_name:
            made.append((attributes.THIRD_PARTY_AUTHORIZATION, server_name.encode()))
        return made

    if settings.third_party is None:
        return values(usual)
    # In 438 too, else coturn's client tries its password. Who needs a token can do nothing without
    # the name, while all others know MD5 and SHA-1. Only who has not tried yet may be told less:
    # whose credential or nonce is not good gets the algorithms, whatever else (section 9.2.4).
    name = settings.third_party.server_name
    for offered in (usual, None) if message.integrity is None else (usual,):
        made = values(offered, name)
        if five_tuple.transport != SPOOFABLE_TRANSPORT or (
            _answer_length(message, made) <= ANSWER_RATIO_MAX * request_length
        ):
            return made
    return values(usual)


def _answer_length(message: StunMessage, made: Values) -> int:
    length = stun.HEADER_LENGTH + ERROR_CODE_LENGTH
    if message.fingerprinted:
        length += stun.FINGERPRINT_LENGTH
    return length + sum(4 + (len(value) + 3 & ~3) for _, value in made)
