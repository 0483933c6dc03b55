"""The test vectors of RFC 5769, byte for byte."""

from __future__ import annotations

import pytest

from relay.core import attributes, stun
from relay.core.addresses import xor_address_decode
from relay.core.errors import MalformedMessageError
from relay.core.integrity import IntegrityKey, long_term_keys_derive
from relay.core.stun import stun_decode, stun_encode

SHORT_TERM_PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"

REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff"
    "80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
RESPONSE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
RESPONSE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)
LONG_TERM_REQUEST = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e"
    "00060012e3839ee38388e383aae38383e382afe382b90000"
    "0015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341"
    "0014000b6578616d706c652e6f726700"
    "00080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
)


def test_request_with_short_term_credential() -> None:
    message = stun_decode(REQUEST)
    assert (message.method, message.message_class) == (stun.BINDING, stun.REQUEST)
    assert message.values[attributes.SOFTWARE] == b"STUN test client"
    assert message.values[attributes.USERNAME] == b"evtj:h6vY"
    assert message.integrity_verify(SHORT_TERM_PASSWORD)


@pytest.mark.parametrize(
    ("datagram", "host"),
    [(RESPONSE_IPV4, "192.0.2.1"), (RESPONSE_IPV6, "2001:db8:1234:5678:11:2233:4455:6677")],
)
def test_response_carries_the_mapped_address(datagram: bytes, host: str) -> None:
    message = stun_decode(datagram)
    value = message.values[attributes.XOR_MAPPED_ADDRESS]
    assert xor_address_decode(value, message.transaction_id).sockaddr == (host, 32853)
    assert message.integrity_verify(SHORT_TERM_PASSWORD)


def test_request_with_long_term_credential() -> None:
    message = stun_decode(LONG_TERM_REQUEST)
    username = message.values[attributes.USERNAME].decode()
    realm = message.values[attributes.REALM].decode()
    assert username == "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
    assert message.values[attributes.NONCE] == b"f//499k954d6OL34oL9FSTvy64sA"
    assert message.integrity_verify(long_term_keys_derive(username, realm, "TheMatrIX").md5)


def test_request_with_long_term_credential_is_encoded_to_the_same_bytes() -> None:
    message = stun_decode(LONG_TERM_REQUEST)
    kinds = attributes.USERNAME, attributes.NONCE, attributes.REALM
    key = long_term_keys_derive(
        "\u30de\u30c8\u30ea\u30c3\u30af\u30b9", "example.org", "TheMatrIX"
    ).md5
    encoded = stun_encode(
        stun.BINDING,
        message.transaction_id,
        [(kind, message.values[kind]) for kind in kinds],
        IntegrityKey(key),
    )
    assert encoded == LONG_TERM_REQUEST


def test_any_flipped_bit_is_noticed() -> None:
    for position in range(len(REQUEST) * 8):
        changed = bytearray(REQUEST)
        changed[position // 8] ^= 1 << position % 8
        try:
            message = stun_decode(bytes(changed))
        except MalformedMessageError:
            continue
        # Without its FINGERPRINT being recognised as one, the integrity still has to fail.
        assert not message.integrity_verify(SHORT_TERM_PASSWORD) or position // 8 >= 100
