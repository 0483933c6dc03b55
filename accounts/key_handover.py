"""A new API key on its way from the form that made it to the page that shows it once.

Between the two it lies in the session, encrypted, so that a copy of the database holds no key that
works; the page takes it out as it reads it, and after ten minutes nothing opens it any more.
"""

from __future__ import annotations

from typing import Final

from cryptography.fernet import InvalidToken
from django.contrib.sessions.backends.base import SessionBase

from accounts.models import ApiKey
from accounts.sealing import sealer

LABEL: Final = b"mindmore: an API key until it is shown"
SESSION_KEY: Final = "api_key_to_show"
WAIT_SECONDS_MAX: Final = 600


def key_hold(session: SessionBase, *, api_key: ApiKey, text: str) -> None:
    """Keep the key's text until its page is opened; a newer key takes an older one's place."""
    session[SESSION_KEY] = [api_key.pk, sealer(LABEL).encrypt(text.encode()).decode()]


def key_take(session: SessionBase, *, api_key: ApiKey) -> str | None:
    """The key's text the first time, None from then on."""
    held = session.get(SESSION_KEY)
    if held is None or held[0] != api_key.pk:
        return None
    del session[SESSION_KEY]
    try:
        return sealer(LABEL).decrypt(held[1], ttl=WAIT_SECONDS_MAX).decode()
    except InvalidToken:
        return None
