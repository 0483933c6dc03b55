"""Answers that cannot be worked out a second time (RFC 8489 section 6.3.1).

A request over UDP may come twice. Most answers come out the same again, for nothing about them has
changed; that to a Refresh which deleted its allocation would not. Such answers are kept as long as
a client may ask again.
"""

from __future__ import annotations

from relay.core.addresses import FiveTuple

ANSWER_SECONDS = 40.0  # RFC 8489 section 6.3.1


class AnswerMemory:
    """At most `answers_max` answers, by five-tuple and transaction; the oldest make room."""

    def __init__(self, answers_max: int) -> None:
        self._answers_max = answers_max
        self._answers: dict[tuple[FiveTuple, bytes], tuple[bytes, float]] = {}

    def keep(self, five_tuple: FiveTuple, transaction_id: bytes, answer: bytes, now: float) -> None:
        """Remember an answer."""
        if len(self._answers) >= self._answers_max:
            del self._answers[next(iter(self._answers))]
        self._answers[five_tuple, transaction_id] = answer, now + ANSWER_SECONDS

    def find(self, five_tuple: FiveTuple, transaction_id: bytes, now: float) -> bytes | None:
        """The answer that this request was given before, if it is remembered."""
        if not self._answers:  # as nearly always
            return None
        answer, until = self._answers.get((five_tuple, transaction_id), (None, 0.0))
        return answer if until > now else None
