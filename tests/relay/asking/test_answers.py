"""What relays answer, as it is written and read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.asking import relays_ask
from relay.control.answers import (
    Answer,
    AnswerError,
    Done,
    LiveRefusal,
    LiveSession,
    Origin,
    RelayStatus,
    done_read,
    facts_part,
    is_last,
    origin_read,
    refusals_part,
    refusals_read,
    sessions_part,
    sessions_read,
    status_read,
)
from relay.control.keys import ALIVE, REPLY
from relay.control.messages import StatusAsk
from relay.publishing import valkey

ORIGIN = Origin("node-1", 0, "00ff")
SESSION = LiveSession(
    *("node-1", "00ff", 17, "prj_a", "crd_b", "tls", "tcp", 1.5, 2.5, 1, 2, 3, 4, 5),
    *("192.0.2.7:40000", "198.51.100.1:50000"),
)
REFUSAL = LiveRefusal(1.5, "prj_a", "crd_b", "Allocate", 486, "the project holds 1 of 1")
STATUS = RelayStatus(
    *(1.5, 2, 3, ("why",), True, None, 4, 2.5, ""),
    refused={"401": 1},
    dropped={"malformed": 2},
    not_media={"prj_a": 3},
)
DONE = Done(is_done=True, reason="because", changed=("secrets",), allocations=3)
READERS = (
    lambda answer: sessions_read(ORIGIN, answer),
    refusals_read,
    status_read,
    done_read,
    origin_read,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def sent(part: Answer) -> Answer:
    """As it comes out of Valkey."""
    read: Answer = json.loads(json.dumps({**part, **ORIGIN._asdict()}))
    return read


def test_what_is_written_is_read() -> None:
    part = sent(sessions_part([SESSION], is_last=False, left_off=7))
    assert sessions_read(ORIGIN, part) == ([SESSION], 7)
    assert not is_last(part)
    assert refusals_read(sent(refusals_part([REFUSAL]))) == [REFUSAL]
    assert status_read(sent(facts_part(STATUS))) == STATUS
    assert done_read(sent(facts_part(DONE))) == DONE
    assert origin_read(part) == ORIGIN
    assert is_last(sent(facts_part(DONE)))


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["sessions", "left_off", "refusals", "facts", "is_last", "node"]), JSON
    )
)
def test_what_is_no_answer_raises_answer_error_only(answer: dict[str, object]) -> None:
    is_last(answer)
    for read in READERS:
        try:
            read(answer)
        except AnswerError:
            continue


@pytest.mark.parametrize("name", sorted(facts_part(STATUS)["facts"]))  # type: ignore[call-overload]
def test_fact_of_another_kind_or_none_refuses_the_answer(name: str) -> None:
    facts = dict(sent(facts_part(STATUS))["facts"])
    with pytest.raises(AnswerError):
        status_read({"facts": {**facts, name: b""}})
    with pytest.raises(AnswerError):
        status_read({"facts": {key: value for key, value in facts.items() if key != name}})


def test_strange_words_in_the_list_of_answers_are_passed_over(
    channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.asking.ANSWER_SECONDS", 0.5)
    words = (b"", b"\xff", b"7", b"{}", b'{"node": 1, "boot": "b", "process": 0}', b"[" * 10_000)

    def message(reply_to: str) -> StatusAsk:
        key = REPLY.format(reply_to=reply_to)
        good = json.dumps({**ORIGIN._asdict(), **facts_part(DONE)})
        valkey().rpush(key, *words, good)
        return StatusAsk(reply_to)

    answers = relays_ask(message)
    assert list(answers.parts) == [ORIGIN]
    assert answers.read(done_read) == {ORIGIN: DONE}
    assert answers.read(status_read) == {}
    assert answers.silent_with({}) == (ORIGIN,)


def test_silence_of_a_process_whose_place_another_boot_has_taken_is_not_said(
    channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.asking.ANSWER_SECONDS", 0.2)
    killed = Origin("node-1", 0, "0001")
    others = [Origin("node-1", 1, "0002"), Origin("node-2", 0, "0003")]
    for origin in (killed, ORIGIN, *others):
        key = ALIVE.format(node=origin.node, boot=origin.boot)
        valkey().set(key, json.dumps({"process": origin.process}), ex=60)

    def message(reply_to: str) -> StatusAsk:
        good = json.dumps({**ORIGIN._asdict(), **facts_part(DONE)})
        valkey().rpush(REPLY.format(reply_to=reply_to), good)
        return StatusAsk(reply_to)

    answers = relays_ask(message)
    assert list(answers.parts) == [ORIGIN]
    assert list(answers.silent) == others
