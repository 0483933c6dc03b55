"""Access tokens for tests, and a client that has one (RFC 7635)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from relay.core.access_tokens import AccessToken, ThirdParty, TokenKey, token_seal
from relay.core.holdings import Holdings
from relay.sealing import gcm_open, gcm_seal
from tests.relay.fake_link import FakeClient, World, settings_make
from tests.turn_client import Address, Attribute, Attributes, Message, Method

SERVER_NAME = "turn.example.org"
KEY = TokenKey("north", "prj_a", b"k" * 32)
NEXT_KEY = TokenKey("south", "prj_a", b"l" * 32)
SHORT_KEY = TokenKey("east", "prj_a", b"m" * 16)
KEY_OF_OTHERS = TokenKey("west", "prj_b", b"n" * 32)
KEYS = (KEY, NEXT_KEY, SHORT_KEY, KEY_OF_OTHERS)
THIRD_PARTY = ThirdParty(SERVER_NAME, KEYS, gcm_open)
MAC_KEY = b"m" * 20
TOKEN_METHODS = (Method.ALLOCATE, Method.REFRESH)


def world_make(holdings: Holdings | None = None, **changed: object) -> World:
    """A world where access tokens are accepted."""
    settings = settings_make(**{"third_party": THIRD_PARTY, **changed})
    return World(settings, holdings=holdings)


def token_make(
    issued_at: float,
    *,
    lifetime_seconds: int = 3600,
    key: TokenKey = KEY,
    server_name: str = SERVER_NAME,
    mac_key: bytes = MAC_KEY,
) -> bytes:
    """A token as an authorization server makes it."""
    token = AccessToken(mac_key, issued_at, lifetime_seconds)
    return token_seal(gcm_seal, key.key, server_name, token, os.urandom(12))


class TokenClient(FakeClient):
    """A client with a token; `is_always_shown`: it goes with every request, whatever that is."""

    is_always_shown = False

    def __init__(
        self,
        world: World,
        token: bytes | None = None,
        *,
        kid: str = KEY.kid,
        mac_key: bytes = MAC_KEY,
        address: Address = ("192.0.2.7", 40000),
    ) -> None:
        super().__init__(world, address, kid, "")
        self.method = Method.BINDING
        given = token_make(world.now) if token is None else token
        self.token_take(given, kid=kid, mac_key=mac_key)

    def token_take(self, token: bytes, *, kid: str = KEY.kid, mac_key: bytes = MAC_KEY) -> None:
        """Use another token from now on."""
        self.username, self.token, self.mac_key = kid, token, mac_key
        if self.key:
            self.key = mac_key

    def request(self, method: Method, attributes: Attributes) -> Message:
        self.method = method
        return super().request(method, attributes)

    def challenge_take(self, answer: Message) -> None:
        super().challenge_take(answer)
        self.key = self.mac_key

    def credential_attributes(self) -> list[tuple[int, bytes]]:
        shown: Sequence[tuple[int, bytes]] = ()
        if self.method in TOKEN_METHODS or self.is_always_shown:
            shown = [(Attribute.ACCESS_TOKEN, self.token)]
        return [*super().credential_attributes(), *shown]
