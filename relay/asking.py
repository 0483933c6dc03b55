"""Asking the running relays, from the Django side, and waiting for what each of them answers.

    alive keys ──▶ who should answer      stream ──▶ every relay ──▶ a list of its own ──▶ here

Every process that listens has a key in Valkey that ends ten seconds after the process. Whoever has
one and says nothing in time is named: silence is no answer. Where a process of the same name
answers with another boot, that one has taken its place.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError

from relay.control.answers import Answer, AnswerError, Origin, is_last, origin_read
from relay.control.keys import ALIVE, REPLY
from relay.control.messages import REPLY_LENGTH, ControlMessage
from relay.publishing import ANSWER_SECONDS_MAX, ControlUnreachableError, message_publish, valkey

ANSWER_SECONDS: Final = 2.0
PARTS_MAX: Final = 1000
READ_SECONDS: Final = ANSWER_SECONDS_MAX / 2  # a longer wait would look like a broken connection

Message = Callable[..., ControlMessage]
Read = TypeVar("Read")


@dataclass(frozen=True)
class Answers:
    """What came back.

    Attributes:
        parts: of each process that answered in full, in their order.
        silent: processes that are alive, or were ten seconds ago, and did not; without those whose
            place another boot has taken.
    """

    parts: Mapping[Origin, list[Answer]]
    silent: tuple[Origin, ...]

    def read(self, read: Callable[[Answer], Read]) -> Mapping[Origin, Read]:
        """The last part of each answer, read; what cannot be read is left out."""
        found = {}
        for origin, parts in self.parts.items():
            try:
                found[origin] = read(parts[-1])
            except AnswerError:
                continue
        return found

    def silent_with(self, read: Mapping[Origin, Any]) -> tuple[Origin, ...]:
        """Those that did not answer, or not so that it could be read."""
        return (*self.silent, *(origin for origin in self.parts if origin not in read))


def relays_ask(
    message: Message,
    *,
    concerns: Callable[[Origin], bool] = lambda _: True,
    seconds: float | None = None,
) -> Answers:
    """Send a message to the relays and wait until all have answered that it concerns.

    Args:
        message: makes the message; is given `reply_to`.
        concerns: whether a process has to answer.
        seconds: how long to wait for those that do not; None: `ANSWER_SECONDS`.

    Raises:
        ControlUnreachableError: Valkey does not answer.
    """
    reply_to = secrets.token_hex(REPLY_LENGTH // 2)
    key = REPLY.format(reply_to=reply_to)
    try:
        expected = {origin for origin in relays_alive() if concerns(origin)}
        # Where nobody is known a relay may just be starting; there is no more to wait for.
        patience = seconds if seconds and expected else ANSWER_SECONDS
        deadline = monotonic() + patience
        message_publish(message=message(reply_to=reply_to))
        begun: dict[Origin, list[Answer]] = {}
        done: dict[Origin, list[Answer]] = {}
        while not expected or not expected <= done.keys():
            left = deadline - monotonic()
            if left <= 0:
                break
            found: Any = valkey().blpop([key], timeout=min(left, READ_SECONDS))
            if found is not None:
                _part_take(found[1], begun, done)
        valkey().delete(key)
    except (RedisError, OSError) as error:
        raise ControlUnreachableError("the relays cannot be asked: Valkey is away") from error
    successors = {(origin.node, origin.process) for origin in done}
    silent = {
        origin
        for origin in (expected | begun.keys()) - done.keys()
        if (origin.node, origin.process) not in successors
    }
    return Answers({origin: done[origin] for origin in sorted(done)}, tuple(sorted(silent)))


def relays_alive() -> list[Origin]:
    """The processes that listen, as far as Valkey knows.

    Raises:
        RedisError: it does not answer.
    """
    keys = sorted(valkey().scan_iter(ALIVE.format(node="*", boot="*"), count=1000))
    found: Any = valkey().mget(keys) if keys else []
    origins = []
    for name, value in zip(keys, found, strict=True):
        *_, node, boot = name.decode().split(":")
        try:
            document = json.loads(value or b"")
            origins.append(origin_read({**document, "node": node, "boot": boot}))
        except (ValueError, TypeError):  # it has ended just now
            continue
    return origins


def _part_take(
    data: bytes, begun: dict[Origin, list[Answer]], done: dict[Origin, list[Answer]]
) -> None:
    try:
        answer = json.loads(data)
        origin = origin_read(answer if isinstance(answer, dict) else {})
    except (ValueError, RecursionError):
        return
    parts = begun.setdefault(origin, [])
    if len(parts) < PARTS_MAX:
        parts.append(answer)
    if is_last(answer):
        done[origin] = parts
