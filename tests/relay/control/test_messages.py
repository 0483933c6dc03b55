"""The messages of the control channel: what is written is read, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as some

from relay.control.messages import (
    KINDS,
    MESSAGE_BYTES_MAX,
    READERS,
    ControlMessage,
    CredentialExtend,
    CredentialLimit,
    CredentialRevoke,
    Drain,
    ExplainAsk,
    MessageError,
    ProjectLimitsSet,
    Reload,
    SessionEnd,
    SessionsAsk,
    StatusAsk,
    Undrain,
    UsernameAnnounce,
    message_decode,
    message_encode,
)
from relay.core.limits import OnExpiry, ProjectLimits

REPLY = "0123456789abcdef" * 2
EXAMPLES: tuple[ControlMessage, ...] = (
    CredentialRevoke("prj_a", "crd_b", 1_800_000_000),
    CredentialExtend("prj_a", "crd_b", 1_800_000_000.5, 1_800_000_001),
    CredentialLimit("prj_a", "crd_b", 1.5, OnExpiry.CUT, 0, 64_000),
    CredentialLimit("prj_a", "crd_b", 1.5),
    ProjectLimitsSet("prj_a", ProjectLimits(OnExpiry.DRAIN, 3, None, media_only=True)),
    ProjectLimitsSet("prj_a", None),
    SessionEnd("node-1", "00ff", 7),
    SessionEnd("node-1", "00ff", 7, REPLY),
    UsernameAnnounce("1800000000:prj_a/crd_b/Anna's ~ call", 1_800_000_000),
    Drain(),
    Drain("node-1", 1_800_000_000, REPLY),
    Undrain("node-1"),
    Reload(None, REPLY),
    SessionsAsk(REPLY, "prj_a"),
    SessionsAsk(REPLY, None, "Anna's ~ call", with_addresses=True),
    SessionsAsk(REPLY),
    ExplainAsk(REPLY, "Anna's ~ call", "prj_a"),
    StatusAsk(REPLY),
)
HOSTILE = (
    b"",
    b"\xff\xfe",
    b"7",
    b"null",
    b"[]",
    b"[" * MESSAGE_BYTES_MAX,
    b"{}",
    b'{"kind": "session_end"}',
    b'{"kind": 7, "version": null}',
    b'{"kind": "shut_down", "version": null}',
    b'{"kind": "status_ask", "version": null, "reply_to": "../../etc/passwd"}',
    b'{"kind": "status_ask", "version": true, "reply_to": "%s"}' % REPLY.encode(),
    b'{"kind": "status_ask", "version": -1, "reply_to": "%s"}' % REPLY.encode(),
    b'{"kind": "status_ask", "reply_to": "%s"}' % REPLY.encode(),
    b'{"kind": "status_ask", "version": null, "reply_to": null}',
    b'{"kind": "status_ask", "version": null, "reply_to": "%s", "more": 1}' % REPLY.encode(),
    b'{"kind": "undrain", "kind": "undrain", "version": null, "node": null, "reply_to": null}',
    b'{"kind": "undrain", "version": null, "node": "\\ud800", "reply_to": null}',
    b'{"kind": "undrain", "version": null, "node": "a\\nb", "reply_to": null}',
    b'{"kind": "undrain", "version": null, "node": "", "reply_to": null}',
    b'{"kind": "undrain", "version": null, "node": ["a"], "reply_to": null}',
    b'{"kind": "username_announce", "version": null, "until": 1, "username": "%s"}' % (b"u" * 509),
    b'{"kind": "session_end", "version": 1, "node": "n", "boot": "b", "allocation": 1.0}',
    b'{"kind": "session_end", "version": 1, "node": "n", "boot": "b", "allocation": null}',
    b'{"kind": "project_limits_set", "version": 1, "project": "p", "limits": {"media_only": true}}',
)


def test_every_kind_has_an_example_and_every_member_a_reader() -> None:
    assert {type(example) for example in EXAMPLES} == set(KINDS.values())
    assert set(KINDS.values()) == set(get_args(ControlMessage))
    members = {field.name for kind in (*KINDS.values(), ProjectLimits) for field in fields(kind)}
    assert members == READERS.keys()


@pytest.mark.parametrize("message", EXAMPLES, ids=repr)
@pytest.mark.parametrize("version", [None, 0, 2**53])
def test_what_is_written_is_read(message: ControlMessage, version: int | None) -> None:
    envelope = message_decode(message_encode(message, version))
    assert (envelope.message, envelope.version) == (message, version)


@pytest.mark.parametrize("data", HOSTILE)
def test_what_is_no_message_is_refused_without_a_word_of_it(data: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        message_decode(data)
    assert REPLY not in str(caught.value)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize("message", EXAMPLES, ids=repr)
def test_a_member_that_is_missing_or_too_much_refuses_the_message(message: ControlMessage) -> None:
    document = json.loads(message_encode(message, 1))
    for name in document:
        less = {member: value for member, value in document.items() if member != name}
        with pytest.raises(MessageError):
            message_decode(json.dumps(less).encode())
    with pytest.raises(MessageError):
        message_decode(json.dumps({**document, "another": 1}).encode())


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "-Infinity", "-1", "1e300", "true", '"1"'])
def test_a_time_is_a_number_that_a_clock_could_show(seconds: str) -> None:
    good = message_encode(CredentialRevoke("prj_a", "crd_b", 1234567), 1).decode()
    assert "1234567" in good
    for bad in (seconds, "9" * 4000):
        with pytest.raises(MessageError):
            message_decode(good.replace("1234567", bad).encode())


def test_a_bitrate_is_one_bit_a_second_at_least() -> None:
    for document in (
        message_encode(CredentialLimit("prj_a", "crd_b", 1.5, bitrate_bps_max=1), 1),
        message_encode(ProjectLimitsSet("prj_a", ProjectLimits(bitrate_bps_max=1)), 1),
    ):
        assert message_encode(message_decode(document).message, 1) == document
        nothing = document.replace(b'"bitrate_bps_max":1', b'"bitrate_bps_max":0')
        assert nothing != document
        with pytest.raises(MessageError):
            message_decode(nothing)


def test_a_message_beyond_the_longest_is_not_even_parsed() -> None:
    data = message_encode(StatusAsk(REPLY))
    padded = data[:-1] + b" " * (MESSAGE_BYTES_MAX - len(data)) + b"}"
    assert len(padded) == MESSAGE_BYTES_MAX
    assert message_decode(padded).message == StatusAsk(REPLY)
    with pytest.raises(MessageError):
        message_decode(padded[:-1] + b" }")


@given(some.sampled_from(EXAMPLES), some.data())
def test_damage_is_refused_or_makes_another_message(
    message: ControlMessage, draw: some.DataObject
) -> None:
    data = bytearray(message_encode(message, 1))
    for _ in range(draw.draw(some.integers(1, 3))):
        place = draw.draw(some.integers(0, len(data) - 1))
        data[place] = draw.draw(some.integers(0, 255))
    try:
        envelope = message_decode(bytes(data))
    except MessageError:
        return
    assert type(envelope.message) in set(KINDS.values())


@given(some.binary(max_size=200))
def test_junk_is_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(MessageError):
        message_decode(data)
