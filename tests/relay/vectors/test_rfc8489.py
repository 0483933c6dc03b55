"""The vector of RFC 8489 appendix B.1, as erratum 6268 corrects it; the key of section 9.2.2."""

from __future__ import annotations

from relay.core import attributes, stun
from relay.core.integrity import (
    SHA256_INTEGRITY,
    IntegrityKey,
    long_term_keys_derive,
    userhash,
)
from relay.core.stun import stun_decode, stun_encode

USERNAME = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
REALM = "example.org"
REQUEST = bytes.fromhex(
    "000100902112a44278ad3433c6ad72c029da412e"
    "001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704"
    "001500296f624d61744a6f733241414143662f2f3439396b39353464"
    "364f4c33346f4c39465354767936347341000000"
    "0014000b6578616d706c652e6f726700"
    "001d000400020000"
    "001c0020b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
)


def test_request_with_userhash_and_sha256_integrity_is_read_and_verified() -> None:
    message = stun_decode(REQUEST)
    assert message.values[attributes.USERHASH] == userhash(USERNAME, REALM)
    assert message.integrity is SHA256_INTEGRITY
    assert message.integrity_verify(long_term_keys_derive(USERNAME, REALM, "TheMatrIX").sha256)
    assert not message.integrity_verify(long_term_keys_derive(USERNAME, REALM, "TheMatrIX").md5)


def test_request_is_encoded_to_the_same_bytes() -> None:
    message = stun_decode(REQUEST)
    kinds = (
        *(attributes.USERHASH, attributes.NONCE, attributes.REALM),
        attributes.PASSWORD_ALGORITHM,
    )
    key = long_term_keys_derive(USERNAME, REALM, "TheMatrIX").sha256
    encoded = stun_encode(
        stun.BINDING,
        message.transaction_id,
        [(kind, message.values[kind]) for kind in kinds],
        IntegrityKey(key, SHA256_INTEGRITY),
    )
    assert encoded == REQUEST


def test_key_is_that_of_the_example() -> None:
    key = long_term_keys_derive("user", "realm", "pass").md5
    assert key.hex() == "8493fbc53ba582fb4c044c456bdc40eb"
