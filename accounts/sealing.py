"""Keys that are derived from the service's secret key, each for one purpose."""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.utils.encoding import force_bytes


def key_derive(label: bytes, secret_key: str | bytes) -> bytes:
    """32 bytes that serve the one purpose `label` names."""
    return hmac.digest(force_bytes(secret_key), label, hashlib.sha256)


def sealer(label: bytes) -> MultiFernet:
    """What encrypts for one purpose; keys retired by `SECRET_KEY_FALLBACKS` still open."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key_derive(label, key))) for key in keys])
