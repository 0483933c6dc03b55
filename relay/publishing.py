"""To the control channel's stream in Valkey, from the Django side.

A stream is no archive: what is older than ten minutes goes with the next message, or within the
hour (`relay.personal_data`), as a message may hold a username.
"""

from __future__ import annotations

import logging
import math
from functools import cache

from django.conf import settings
from django.utils import timezone
from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError
from redis.retry import Retry

from relay.control.keys import (
    ANNOUNCED,
    ANNOUNCED_OF,
    FIELD,
    STREAM,
    STREAM_LENGTH_MAX,
    STREAM_SECONDS_MAX,
)
from relay.control.messages import ControlMessage, UsernameAnnounce, message_encode

ANSWER_SECONDS_MAX = 2.0
ANNOUNCED_MAX = 100_000
ANNOUNCED_PER_PROJECT_MAX = 10_000

logger = logging.getLogger(__name__)


class ControlUnreachableError(Exception):
    """Valkey does not answer, so the relays were told nothing."""


class AnnouncedFullError(Exception):
    """The project has as many announced usernames as it may have at a time."""


@cache
def valkey() -> Redis:
    """The client of this process; its connections are made when they are needed."""
    return Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=ANSWER_SECONDS_MAX,
        socket_connect_timeout=ANSWER_SECONDS_MAX,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


def message_publish(*, message: ControlMessage, version: int | None = None) -> None:
    """Tell every relay that listens.

    Raises:
        ControlUnreachableError: Valkey does not answer.
    """
    try:
        with valkey().pipeline() as pipeline:
            _add(pipeline, message, version)
            pipeline.execute()
    except (RedisError, OSError) as error:
        raise ControlUnreachableError("the relays cannot be told: Valkey is away") from error


def message_publish_if_possible(*, message: ControlMessage, version: int) -> None:
    """Tell every relay that listens of what the database keeps.

    Where Valkey is away they find it in the database themselves, some seconds later.
    """
    try:
        message_publish(message=message, version=version)
    except ControlUnreachableError:
        logger.warning("Valkey does not answer: the relays hear of a change from the database")


def announcement_publish(
    *, message: UsernameAnnounce, project: str, credential: str, unix_now: float
) -> None:
    """Tell every relay of a username, and those that start later.

    The relays keep it in memory, Valkey for those that start later; the database does not, as
    nothing that is minted is written there.

    Args:
        message: the username, and until when.
        project, credential: what the username says of itself.
        unix_now: the time.

    Raises:
        AnnouncedFullError: the project has too many already; a few more pass where they come at
            the same moment.
        ControlUnreachableError: Valkey does not answer.
    """
    own = ANNOUNCED_OF.format(project=project)
    try:
        with valkey().pipeline() as pipeline:
            pipeline.zremrangebyscore(own, "-inf", unix_now)
            pipeline.zcard(own)
            pipeline.zscore(own, credential)
            _, held, known_until = pipeline.execute()
        if held >= ANNOUNCED_PER_PROJECT_MAX and known_until is None:
            raise AnnouncedFullError("too many usernames of this project are announced")
        with valkey().pipeline() as pipeline:
            pipeline.zadd(own, {credential: message.until}, gt=True)
            ends = math.ceil(message.until)
            pipeline.expireat(own, ends, nx=True)  # to what has no end, none is later
            pipeline.expireat(own, ends, gt=True)
            pipeline.zadd(ANNOUNCED, {message.username: message.until}, gt=True)
            pipeline.zremrangebyscore(ANNOUNCED, "-inf", unix_now)
            pipeline.zremrangebyrank(ANNOUNCED, 0, -ANNOUNCED_MAX - 1)
            _add(pipeline, message, None)
            pipeline.execute()
    except (RedisError, OSError) as error:
        raise ControlUnreachableError("the relays cannot be told: Valkey is away") from error


def overdue_count(*, unix_now: float) -> int:
    """How many announced usernames and messages have been there for longer than they may."""
    ended = int(valkey().zcount(ANNOUNCED, "-inf", unix_now))
    old = valkey().xrange(STREAM, max=_oldest_id(unix_now), count=STREAM_LENGTH_MAX)
    return ended + len(old or ())


def overdue_remove(*, unix_now: float) -> int:
    """Remove them; answers how many there were."""
    ended = int(valkey().zremrangebyscore(ANNOUNCED, "-inf", unix_now))
    return ended + int(valkey().xtrim(STREAM, minid=_oldest_id(unix_now), approximate=False))


def _add(pipeline: Pipeline, message: ControlMessage, version: int | None) -> None:
    data = message_encode(message, version)
    pipeline.xadd(STREAM, {FIELD: data}, maxlen=STREAM_LENGTH_MAX, approximate=True)
    oldest = _oldest_id(timezone.now().timestamp())
    pipeline.xtrim(STREAM, minid=oldest, approximate=False)


def _oldest_id(unix_now: float) -> str:
    return str(int((unix_now - STREAM_SECONDS_MAX) * 1000))
