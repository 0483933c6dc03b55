"""Decode and encode are inverse, and junk raises one error only."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from relay.core import attributes, stun
from relay.core.addresses import (
    address_encode,
    host_format,
    xor_address_decode,
    xor_address_encode,
)
from relay.core.channeldata import channeldata_decode, channeldata_encode
from relay.core.errors import MalformedMessageError
from relay.core.integrity import SHA1_INTEGRITY, SHA256_INTEGRITY, IntegrityKey
from relay.core.stun import HEADER_LENGTH, stun_decode, stun_encode

TRANSACTION_IDS = st.binary(min_size=12, max_size=12)
TYPES = st.integers(0, 0xFFFF).filter(
    lambda kind: kind not in (*stun.INTEGRITY_KINDS, attributes.FINGERPRINT)
)
ATTRIBUTES = st.dictionaries(TYPES, st.binary(max_size=64), max_size=12)
KEYS = st.builds(
    IntegrityKey, st.binary(max_size=32), st.sampled_from([SHA1_INTEGRITY, SHA256_INTEGRITY])
)
HOSTS = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


@given(st.integers(0, 0x3FFF), TRANSACTION_IDS, ATTRIBUTES, st.none() | KEYS)
def test_stun_decode_inverts_encode(
    message_type: int, transaction_id: bytes, values: dict[int, bytes], key: IntegrityKey | None
) -> None:
    datagram = stun_encode(message_type, transaction_id, values.items(), key)
    message = stun_decode(datagram)
    assert message.method | message.message_class == message_type
    assert message.transaction_id == transaction_id
    plain = {kind: found for kind, found in message.values.items() if kind in values}
    assert plain == values
    assert message.integrity is (key.kind if key else None)
    if key is not None:
        assert message.integrity_verify(key.key)
        assert not message.integrity_verify(key.key + b"x")


@given(st.binary(max_size=600))
def test_junk_raises_malformed_only(junk: bytes) -> None:
    for decode in (stun_decode, channeldata_decode):
        with suppress(MalformedMessageError):
            decode(junk)


@given(TRANSACTION_IDS, ATTRIBUTES, st.data())
def test_damaged_messages_raise_malformed_only(
    transaction_id: bytes, values: dict[int, bytes], data: st.DataObject
) -> None:
    datagram = bytearray(
        stun_encode(stun.ALLOCATE, transaction_id, values.items(), IntegrityKey(b"key"))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        datagram[data.draw(st.integers(0, len(datagram) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(HEADER_LENGTH, len(datagram)))
    with suppress(MalformedMessageError):
        message = stun_decode(bytes(datagram[:cut]))
        message.unknown_required()
        message.repeated(attributes.XOR_PEER_ADDRESS)
        message.integrity_verify(b"key")


@given(st.integers(0x4000, 0x7FFF), st.binary(max_size=2000), st.binary(max_size=3))
def test_channeldata_decode_inverts_encode(number: int, data: bytes, padding: bytes) -> None:
    assert channeldata_decode(channeldata_encode(number, data) + padding) == (number, data)


@given(HOSTS, st.integers(0, 65535), TRANSACTION_IDS)
def test_xor_address_decode_inverts_encode(packed: bytes, port: int, transaction_id: bytes) -> None:
    value = xor_address_encode((host_format(packed), port), transaction_id)
    assert xor_address_decode(value, transaction_id) == (packed, port)


@given(HOSTS, st.integers(0, 65535), TRANSACTION_IDS, st.integers(0, 255))
def test_first_byte_of_an_address_is_zero_and_ignored(
    packed: bytes, port: int, transaction_id: bytes, first: int
) -> None:
    for value in (
        xor_address_encode((host_format(packed), port), transaction_id),
        address_encode((host_format(packed), port)),
    ):
        assert value[0] == 0
        changed = bytes((first,)) + value[1:]
        assert xor_address_decode(changed, transaction_id) == xor_address_decode(
            value, transaction_id
        )


@given(TRANSACTION_IDS, st.binary(max_size=9), st.binary(min_size=3, max_size=3))
def test_padding_is_zero_and_ignored(transaction_id: bytes, value: bytes, padding: bytes) -> None:
    kind = attributes.SOFTWARE
    plain = stun_encode(stun.BINDING, transaction_id, [(kind, value), (kind, b"last")])
    start = HEADER_LENGTH + 4 + len(value)
    length = -len(value) % 4
    assert len(plain) % 4 == 0
    assert plain[start : start + length] == bytes(length)
    message = stun_decode(plain[:start] + padding[:length] + plain[start + length :])
    assert message.repeated(kind) == [value, b"last"]


@given(st.binary(max_size=24), TRANSACTION_IDS)
def test_junk_addresses_raise_malformed_only(value: bytes, transaction_id: bytes) -> None:
    with suppress(MalformedMessageError):
        xor_address_decode(value, transaction_id)


@given(TRANSACTION_IDS, st.binary(max_size=8), st.binary(max_size=8), st.none() | KEYS)
def test_of_a_duplicated_attribute_the_first_counts(
    transaction_id: bytes, first: bytes, second: bytes, key: IntegrityKey | None
) -> None:
    values = [(attributes.LIFETIME, first), (attributes.LIFETIME, second)]
    datagram = stun_encode(stun.REFRESH, transaction_id, values, key)
    assert stun_decode(datagram).values[attributes.LIFETIME] == first


@given(TRANSACTION_IDS, st.binary(max_size=8), KEYS)
def test_attributes_after_the_integrity_attribute_are_ignored(
    transaction_id: bytes, smuggled: bytes, key: IntegrityKey
) -> None:
    covered = stun_encode(stun.REFRESH, transaction_id, [], key)
    padding = bytes(-len(smuggled) % 4)
    peer = attributes.XOR_PEER_ADDRESS
    extra = b"".join(
        kind.to_bytes(2, "big") + len(smuggled).to_bytes(2, "big") + smuggled + padding
        for kind in (attributes.USERNAME, attributes.LIFETIME, peer)
    )
    length = len(covered) - HEADER_LENGTH + len(extra)
    message = stun_decode(covered[:2] + length.to_bytes(2, "big") + covered[4:] + extra)
    assert set(message.values) == {key.kind.attribute}
    assert message.repeated(peer) == []
    assert message.integrity_verify(key.key)
