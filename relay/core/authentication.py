"""The long-term credential mechanism with time-limited credentials (RFC 8489 section 9.2.4), and
access tokens in the place of a password (RFC 7635).

An unknown user and a wrong password get the same bytes after the same work; only the event for the
operator tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from relay.core import attributes, stun
from relay.core.access_tokens import ThirdParty
from relay.core.addresses import SockAddress
from relay.core.allocation import Allocation
from relay.core.credentials import (
    USERNAME_LENGTH_READ_MAX,
    TurnUsername,
    password_derive,
    username_format,
    username_parse,
)
from relay.core.effects import AuthenticationOutcome
from relay.core.entitlements import Entitlements
from relay.core.error_codes import BAD_REQUEST, STALE_NONCE, UNAUTHENTICATED, UNKNOWN_ATTRIBUTE
from relay.core.integrity import (
    MD5,
    NO_KEYS,
    PASSWORD_ALGORITHMS_VALUE,
    SHA256,
    IntegrityKey,
    LongTermKeys,
    long_term_keys_derive,
    userhash,
)
from relay.core.nonce import nonce_is_fresh, nonce_made_at, nonce_offers_algorithms
from relay.core.settings import TurnSettings
from relay.core.stun import StunMessage
from relay.core.third_party import token_judge

REALM_LENGTH_MAX = 763  # bytes, RFC 8489 section 14.9
USERHASH_LENGTH = 32
# Someone who can choose a username far ahead of time must not get a credential for ever.
CLOCK_SKEW_SECONDS = 300
NONCE_OF_OTHERS = "the nonce was made for another address, or with a key that is no longer known"
DRAINED = "the credential has ended; what it allocated lives out its lifetime"
FAILURE_RULES = {
    AuthenticationOutcome.EXPIRED: "the credential has expired",
    AuthenticationOutcome.REVOKED: "the credential was revoked",
    AuthenticationOutcome.UNKNOWN_USER: "the credential ends further ahead than any may",
}
NONCE_TOO_OLD = "the nonce is too old; the answer carries a fresh one"
# What an unknown USERHASH is worked through with; no such credential can be minted.
_NOBODY = "0:-/-"
_ALGORITHMS = {bytes((0, algorithm, 0, 0)): algorithm for algorithm in (MD5, SHA256)}


@dataclass(slots=True)  # not frozen, as effects are not
class Accepted:
    """The request is the work of `username`; `key` covers what it is answered with.

    Attributes:
        keys: what its password makes; the password itself is kept nowhere (RFC 8656 section 6).
        kid: the key id of its access token; empty where it has a password.
        token_ends_at: unix seconds; no lifetime may go beyond it.
    """

    username: str
    owner: str
    keys: LongTermKeys
    key: IntegrityKey
    kid: str = ""
    token_ends_at: float = inf


@dataclass(slots=True)
class Holder:
    """Who holds the allocation on a five-tuple.

    Attributes:
        kid, mac_key: of an access token, in the place of a password; else empty.
        token_ends_at: unix seconds.
    """

    username: str
    owner: str
    keys: LongTermKeys
    kid: str = ""
    mac_key: bytes = b""
    token_ends_at: float = inf

    @property
    def name(self) -> str:
        """What the client calls itself."""
        return self.kid or self.username


def holder_of(allocation: Allocation | None) -> Holder | None:
    """Who proved to be the user of a live allocation."""
    if allocation is None:
        return None
    return Holder(
        allocation.username,
        allocation.owner,
        allocation.keys,
        allocation.kid,
        allocation.key.key if allocation.kid else b"",
        allocation.token_ends_at,
    )


@dataclass(slots=True)
class Refused:
    """The request is answered with `code`.

    Attributes:
        outcome: what goes into the connection log; None where nothing does.
        project: whose credential it was, where its password was right.
        address_is_proven: the nonce shows that the answer reaches who sent the request.
        username, rule: whose request it was and what refused it, where the password was right.
    """

    code: int
    outcome: AuthenticationOutcome | None = None
    project: str | None = None
    address_is_proven: bool = False
    username: str = ""
    rule: str = ""


def authenticate(
    message: StunMessage,
    client: SockAddress,
    holder: Holder | None,
    usernames: Mapping[bytes, str],
    entitlements: Entitlements,
    settings: TurnSettings,
    unix_now: float,
) -> Accepted | Refused:
    """Judge a request.

    Args:
        message: the request.
        client: where it came from; nonces are bound to it.
        holder: who holds the allocation on this five-tuple, if there is one. The keys are used
            again: a call lives on after the credential that began it has ended.
        usernames: by USERHASH, for clients that send no USERNAME.
        entitlements: knows which credentials were revoked or extended.
        settings: secrets, nonce keys, limits.
        unix_now: the time of day, unix seconds.

    Raises:
        MalformedMessageError: USERNAME or REALM too long or not UTF-8.
    """
    if message.integrity is None:
        return Refused(UNAUTHENTICATED)
    if attributes.ACCESS_TOKEN in message.values and settings.third_party is None:
        return Refused(UNKNOWN_ATTRIBUTE)  # nobody was asked for one (RFC 7635 section 7)
    realm = message.text(attributes.REALM, REALM_LENGTH_MAX)
    nonce = message.values.get(attributes.NONCE)
    username = _username(message, holder, usernames, settings)
    if username is None or realm is None or nonce is None:
        return Refused(BAD_REQUEST)
    algorithm = _password_algorithm(message, nonce)
    if algorithm is None:
        return Refused(BAD_REQUEST)
    judged = _judge(message, username, algorithm, holder, entitlements, settings, unix_now)
    made_at = nonce_made_at(settings.nonce_keys, client, nonce, unix_now)
    if made_at is None:
        # Whoever sent this may not be at that address: nothing is written down about it.
        if isinstance(judged, Refused):
            return Refused(UNAUTHENTICATED)
        return _stale(judged, NONCE_OF_OTHERS, address_is_proven=False)
    lifetime = settings.nonce_lifetime_seconds
    if isinstance(judged, Refused) or nonce_is_fresh(made_at, unix_now, lifetime):
        return judged
    return _stale(judged, NONCE_TOO_OLD, address_is_proven=True)


def refresh_allowed(
    message: StunMessage, user: Accepted, allocation: Allocation, unix_now: float
) -> Accepted | Refused:
    """Refuse to prolong an allocation whose credential has ended, where the project says DRAIN.

    It may live out its lifetime: everything else is allowed, and to end it of course.
    """
    if message.method != stun.REFRESH or unix_now < allocation.refresh_until:
        return user
    if message.values.get(attributes.LIFETIME) == bytes(4) or user.username != allocation.username:
        return user
    return replace(_failure(AuthenticationOutcome.EXPIRED, user.owner, user.username), rule=DRAINED)


def _stale(user: Accepted, rule: str, *, address_is_proven: bool) -> Refused:
    return Refused(
        STALE_NONCE,
        project=user.owner,
        address_is_proven=address_is_proven,
        username=user.username,
        rule=rule,
    )


def _username(
    message: StunMessage,
    holder: Holder | None,
    usernames: Mapping[bytes, str],
    settings: TurnSettings,
) -> str | None:
    """The username, whichever way it was sent; None where neither USERNAME nor USERHASH is."""
    username = message.text(attributes.USERNAME, USERNAME_LENGTH_READ_MAX)
    if username is not None:
        return username
    value = message.values.get(attributes.USERHASH)
    if value is None or len(value) != USERHASH_LENGTH:
        return None
    if holder is not None and value == userhash(holder.name, settings.realm):
        return holder.name
    third_party = settings.third_party
    kid = third_party.kid_of(value, settings.realm) if third_party is not None else None
    return kid or usernames.get(value, _NOBODY)


def _password_algorithm(message: StunMessage, nonce: bytes) -> int | None:
    """The algorithm of the key; None where somebody tampered with what was offered (bid-down)."""
    offered = message.values.get(attributes.PASSWORD_ALGORITHMS)
    chosen = message.values.get(attributes.PASSWORD_ALGORITHM)
    if not nonce_offers_algorithms(nonce) or (offered is None and chosen is None):
        return MD5
    if offered != PASSWORD_ALGORITHMS_VALUE or chosen is None:
        return None
    return _ALGORITHMS.get(chosen)


def _judge(
    message: StunMessage,
    username: str,
    algorithm: int,
    holder: Holder | None,
    entitlements: Entitlements,
    settings: TurnSettings,
    unix_now: float,
) -> Accepted | Refused:
    """The verdict for somebody whose nonce is good."""
    if settings.third_party is not None and attributes.ACCESS_TOKEN in message.values:
        return _judge_token(
            message, username, settings.third_party, entitlements, settings, unix_now
        )
    if holder is not None and holder.name == username:
        return _judge_holder(message, holder, algorithm)
    keys = _matching_keys(message, username, algorithm, settings)
    parsed = username_parse(username)
    if keys is None or parsed is None:
        unknown = parsed is None
        return _failure(
            AuthenticationOutcome.UNKNOWN_USER if unknown else AuthenticationOutcome.WRONG_PASSWORD
        )
    outcome = _outcome(parsed, entitlements, settings, unix_now)
    if outcome is not AuthenticationOutcome.ACCEPTED:
        return _failure(outcome, parsed.project, username)
    key = stun.answer_key(message, keys.of(algorithm))
    return Accepted(username, parsed.project, keys, key)


def _judge_holder(message: StunMessage, holder: Holder, algorithm: int) -> Accepted | Refused:
    """The verdict for who says to be the holder of the allocation on the five-tuple."""
    secret = holder.mac_key if holder.kid else holder.keys.of(algorithm)
    if message.integrity is None or not message.integrity_verify(secret):
        return _failure(AuthenticationOutcome.WRONG_PASSWORD, holder.owner)
    key = (
        IntegrityKey(secret, message.integrity) if holder.kid else stun.answer_key(message, secret)
    )
    kid, ends_at = holder.kid, holder.token_ends_at
    return Accepted(holder.username, holder.owner, holder.keys, key, kid, ends_at)


def _judge_token(
    message: StunMessage,
    kid: str,
    third_party: ThirdParty,
    entitlements: Entitlements,
    settings: TurnSettings,
    unix_now: float,
) -> Accepted | Refused:
    """The verdict for who has an access token: it is a credential of its project like any other."""
    verdict = token_judge(message, kid, third_party, unix_now)
    credential = verdict.credential
    if credential is None or message.integrity is None:
        return _failure(verdict.outcome)
    username = username_format(**credential._asdict())
    outcome = verdict.outcome
    if outcome is AuthenticationOutcome.ACCEPTED:
        outcome = _outcome(credential, entitlements, settings, unix_now)
    if outcome is not AuthenticationOutcome.ACCEPTED:
        return _failure(outcome, credential.project, username)
    key = IntegrityKey(verdict.mac_key, message.integrity)
    return Accepted(username, credential.project, NO_KEYS, key, kid, verdict.ends_at)


def _failure(
    outcome: AuthenticationOutcome, project: str | None = None, username: str = ""
) -> Refused:
    return Refused(
        UNAUTHENTICATED,
        outcome,
        project,
        address_is_proven=True,
        username=username,
        rule=FAILURE_RULES.get(outcome, ""),
    )


def _outcome(
    parsed: TurnUsername, entitlements: Entitlements, settings: TurnSettings, unix_now: float
) -> AuthenticationOutcome:
    """How a credential whose password was right is judged."""
    if entitlements.is_revoked(parsed):
        return AuthenticationOutcome.REVOKED
    if entitlements.ends_at(parsed) <= unix_now:
        return AuthenticationOutcome.EXPIRED
    if parsed.expires_at > unix_now + settings.credential_lifetime_seconds_max + CLOCK_SKEW_SECONDS:
        return AuthenticationOutcome.UNKNOWN_USER
    return AuthenticationOutcome.ACCEPTED


def _matching_keys(
    message: StunMessage, username: str, algorithm: int, settings: TurnSettings
) -> LongTermKeys | None:
    """The keys of the secret that covers the message; every one is tried, whichever it is."""
    found = None
    for secret in settings.secrets:
        password = password_derive(secret, username)
        keys = long_term_keys_derive(username, settings.realm, password)
        if message.integrity_verify(keys.of(algorithm)):
            found = keys
    return found
