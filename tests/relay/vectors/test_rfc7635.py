"""The sample tokens of RFC 7635 appendix A, byte for byte, and the format of section 6.2."""

from __future__ import annotations

import struct

import pytest

from relay.core.access_tokens import AccessToken, ThirdParty, token_seal
from relay.sealing import gcm_open, gcm_seal

SERVER_NAME = "blackdow.carleon.gov"
LONG_TERM_KEY = b"HGkj32KJGiuy098sdfaqbNjOiaz71923"
MAC_KEY = b"ZksjpweoixXmvn67534m"
NONCE = b"h4j3k2l2n4b5"
TIMESTAMP = 92470300704768
TOKEN = AccessToken(MAC_KEY, TIMESTAMP / 2**16, 3600)
SAMPLES = {
    "AEAD_AES_256_GCM": (
        LONG_TERM_KEY,
        "000c68346a336b326c326e346235617ef134a3d5e44e9a19cc7dc104b0c03d03"
        "b2a551d8fdf5cd3b6dca6f10cfb77e5b2ddec84d293a5c50499359f0c2e26f76",
    ),
    "AEAD_AES_128_GCM": (
        LONG_TERM_KEY[:16],
        "000c68346a336b326c326e3462357fb9e99f0827be3df1e1bd651493d3031d36"
        "df57079784aee5eacb65fad4f27fab1a3f97974b69f851b24bf5af09eda357e0",
    ),
}

every_sample = pytest.mark.parametrize(("key", "sample"), SAMPLES.values(), ids=SAMPLES)


def token_open(key: bytes, value: bytes) -> AccessToken | None:
    return ThirdParty(SERVER_NAME, (), gcm_open).open(key, value)


@every_sample
def test_sample_token_is_read(key: bytes, sample: str) -> None:
    assert token_open(key, bytes.fromhex(sample)) == TOKEN


@every_sample
def test_sample_token_is_sealed_to_the_same_bytes(key: bytes, sample: str) -> None:
    assert token_seal(gcm_seal, key, SERVER_NAME, TOKEN, NONCE) == bytes.fromhex(sample)


@pytest.mark.parametrize(
    ("fraction", "seconds"), [(0, 0.0), (1, 1 / 64000), (32000, 0.5), (63999, 63999 / 64000)]
)
def test_timestamp_has_48_bits_of_seconds_and_16_of_their_64000ths(
    fraction: int, seconds: float
) -> None:
    content = struct.pack("!H20sQI", 20, MAC_KEY, 1_800_000_000 << 16 | fraction, 3600)
    value = b"\0\x0c" + NONCE + gcm_seal(LONG_TERM_KEY, NONCE, content, SERVER_NAME.encode())
    token = token_open(LONG_TERM_KEY, value)
    assert token is not None
    assert token.issued_at == pytest.approx(1_800_000_000 + seconds, rel=0, abs=1e-6)


@pytest.mark.parametrize("length", [0, 8, 11, 13, 16])
def test_nonce_has_12_bytes_and_no_other_length(length: int) -> None:
    value = bytes.fromhex(SAMPLES["AEAD_AES_256_GCM"][1])
    assert token_open(LONG_TERM_KEY, length.to_bytes(2, "big") + value[2:]) is None
    if length >= 8:  # what AES-GCM itself takes
        nonce = bytes(length)
        content = struct.pack("!H20sQI", 20, MAC_KEY, TIMESTAMP, 3600)
        sealed = gcm_seal(LONG_TERM_KEY, nonce, content, SERVER_NAME.encode())
        assert token_open(LONG_TERM_KEY, length.to_bytes(2, "big") + nonce + sealed) is None
