"""AES-GCM, with 16 or 32 bytes of key (AEAD_AES_128_GCM and AEAD_AES_256_GCM, RFC 5116 section 5).

The one thing of access tokens that the standard library cannot do; the core is given it.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def gcm_seal(key: bytes, nonce: bytes, content: bytes, associated: bytes) -> bytes:
    """Encrypt `content`, and authenticate it together with `associated`: 16 bytes more."""
    return AESGCM(key).encrypt(nonce, content, associated)


def gcm_open(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """What was sealed; None where anything of it is not as it was."""
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except InvalidTag:
        return None
