"""What the Django side writes, says, and removes again."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from django.db import transaction
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from accounts.models import Organisation, Project
from privacy.retention.engine import holders
from relay.control.keys import ANNOUNCED, ANNOUNCED_OF, FIELD, STREAM
from relay.control.messages import (
    ControlMessage,
    CredentialExtend,
    CredentialLimit,
    CredentialRevoke,
    ProjectLimitsSet,
    SessionEnd,
    UsernameAnnounce,
    message_decode,
)
from relay.core.limits import OnExpiry, ProjectLimits
from relay.models import CredentialOverride, EndedSession, ProjectLimit
from relay.publishing import AnnouncedFullError, ControlUnreachableError, valkey
from relay.services.control import (
    ControlError,
    credential_extend,
    credential_limit,
    credential_revoke,
    project_limits_set,
    session_end,
    username_announce,
    version_next,
)
from relay.services.credentials import CredentialLimitError
from relay.services.snapshot import snapshot_read

NOW = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
CREDENTIAL = "crd_aaaaaaaaaaaaaaaa"
LONGEST = timedelta(days=30, minutes=5)
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("valkey_apart")]


def snapshot(since: int = 0, now: datetime = NOW) -> list[ControlMessage]:
    page = snapshot_read(since=since, now=now)
    assert page.is_last
    return list(page.messages)


def published() -> list[ControlMessage]:
    """What the stream holds."""
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", valkey().xrange(STREAM))
    return [message_decode(entry[FIELD]).message for _, entry in entries]


def test_revocation_is_kept_for_as_long_as_any_credential_may_live(project: Project) -> None:
    credential_revoke(project=project, credential=CREDENTIAL, now=NOW)
    credential_revoke(project=project, credential=CREDENTIAL, now=NOW + timedelta(hours=1))
    row = CredentialOverride.objects.get()
    assert row.revoked_at == NOW
    until = NOW + timedelta(hours=1) + LONGEST
    assert row.until == until
    expected = CredentialRevoke(project.public_id, CREDENTIAL, until.timestamp())
    assert expected in snapshot()
    assert snapshot(now=until) == []


def test_snapshot_says_everything_of_a_credential(project: Project) -> None:
    expires_at = NOW + timedelta(days=2)
    credential_revoke(project=project, credential=CREDENTIAL, now=NOW)
    credential_limit(
        project=project, credential=CREDENTIAL, on_expiry=OnExpiry.DRAIN, bitrate_bps_max=5, now=NOW
    )
    credential_extend(project=project, credential=CREDENTIAL, expires_at=expires_at, now=NOW)
    until = (NOW + LONGEST).timestamp()
    assert snapshot() == [
        CredentialLimit(project.public_id, CREDENTIAL, until, OnExpiry.DRAIN, None, 5),
        CredentialExtend(project.public_id, CREDENTIAL, expires_at.timestamp(), until),
        CredentialRevoke(project.public_id, CREDENTIAL, until),
    ]


def test_limits_that_were_taken_back_are_said_to_a_relay_that_has_them(project: Project) -> None:
    limits = ProjectLimits(OnExpiry.CUT, 3, 64_000, media_only=True)
    project_limits_set(project=project, limits=limits)
    credential_limit(project=project, credential=CREDENTIAL, allocations_max=1, now=NOW)
    has = snapshot_read(since=0, now=NOW)
    assert has.messages[0] == ProjectLimitsSet(project.public_id, limits)
    project_limits_set(project=project, limits=None)
    credential_limit(project=project, credential=CREDENTIAL, now=NOW)
    until = (NOW + LONGEST).timestamp()
    assert snapshot(since=has.version) == [
        ProjectLimitsSet(project.public_id, None),
        CredentialLimit(project.public_id, CREDENTIAL, until),
    ]


def test_session_end_is_kept_for_a_day(project: Project) -> None:
    session_end(node="node-1", boot="00ff", allocation=7, now=NOW)
    session_end(node="node-1", boot="00ff", allocation=7, now=NOW)
    assert snapshot() == [SessionEnd("node-1", "00ff", 7)]
    assert snapshot(now=NOW + timedelta(days=1)) == []


def test_versions_follow_each_other_and_a_change_that_is_rolled_back_leaves_no_gap(
    project: Project,
) -> None:
    first = version_next()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        credential_revoke(project=project, credential=CREDENTIAL, now=NOW)
        _ = 1 / 0
    assert version_next() == first + 1
    assert CredentialOverride.objects.count() == 0


def test_nothing_is_published_before_it_is_committed(
    project: Project, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    expected = ProjectLimitsSet(project.public_id, ProjectLimits(allocations_max=7))
    with django_capture_on_commit_callbacks() as callbacks:
        project_limits_set(project=project, limits=ProjectLimits(allocations_max=7))
        assert expected not in published()
    (publish,) = callbacks
    publish()
    assert expected in published()


def test_change_is_made_where_valkey_is_away_and_only_an_announcement_fails(
    project: Project,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    valkey.cache_clear()
    try:
        with django_capture_on_commit_callbacks(execute=True):
            credential_revoke(project=project, credential=CREDENTIAL, now=NOW)
        with pytest.raises(ControlUnreachableError):
            username_announce(username=username_of("somebody"), expires_at=NOW, now=NOW)
    finally:
        valkey.cache_clear()
    assert CredentialOverride.objects.get().revoked_at == NOW
    assert "Valkey does not answer" in caplog.text
    assert CREDENTIAL not in caplog.text


@pytest.mark.parametrize("rows_max", [1, 2, 3, 100])
def test_snapshot_comes_in_pages_of_which_none_is_left_out_or_comes_twice(
    project: Project, organisation: Organisation, rows_max: int
) -> None:
    said: list[ControlMessage] = []
    for number in range(3):
        other = Project.objects.create(organisation=organisation, name=str(number))
        project_limits_set(project=other, limits=None)
        session_end(node="node-1", boot="00ff", allocation=number, now=NOW)
        said += [ProjectLimitsSet(other.public_id, None), SessionEnd("node-1", "00ff", number)]
    got: list[ControlMessage] = []
    since, pages, is_last = 0, 0, False
    while not is_last:
        page = snapshot_read(since=since, now=NOW, rows_max=rows_max)
        assert page.version > since
        got += page.messages
        since, is_last, pages = page.version, page.is_last, pages + 1
    assert got == said
    assert pages == -(-6 // rows_max)
    assert snapshot(since=since) == []


@pytest.mark.parametrize(
    "credential", ["", "crd_b", "crd_AAAAAAAAAAAAAAAA", "key_aaaaaaaaaaaaaaaa", CREDENTIAL + "\n"]
)
def test_what_is_no_credentials_id_is_refused(project: Project, credential: str) -> None:
    with pytest.raises(ControlError):
        credential_revoke(project=project, credential=credential, now=NOW)


def test_values_out_of_bounds_are_refused_and_written_nowhere(project: Project) -> None:
    for value in (-1, 2**40):
        with pytest.raises(ControlError):
            project_limits_set(project=project, limits=ProjectLimits(allocations_max=value))
    for value in (-1, 0, 2**50):
        with pytest.raises(ControlError):
            project_limits_set(project=project, limits=ProjectLimits(bitrate_bps_max=value))
        with pytest.raises(ControlError):
            credential_limit(project=project, credential=CREDENTIAL, bitrate_bps_max=value, now=NOW)
    for node, boot in (("", "00ff"), ("node\n", "00ff"), ("n" * 65, "00ff"), ("node-1", "")):
        with pytest.raises(ControlError):
            session_end(node=node, boot=boot, allocation=1, now=NOW)
    assert not ProjectLimit.objects.exists()
    assert not EndedSession.objects.exists()
    assert not CredentialOverride.objects.exists()


def test_extension_beyond_what_the_project_may_have_is_refused(project: Project) -> None:
    project.credential_ttl_seconds_max = 3600
    latest = NOW + timedelta(hours=1)
    credential_extend(project=project, credential=CREDENTIAL, expires_at=latest, now=NOW)
    with pytest.raises(CredentialLimitError) as caught:
        credential_extend(
            project=project,
            credential=CREDENTIAL,
            expires_at=latest + timedelta(seconds=1),
            now=NOW,
        )
    assert (caught.value.name, caught.value.maximum) == ("expires_at", 3600)
    assert CredentialOverride.objects.get().expires_at == latest


def test_purge_removes_rows_whose_time_is_over_and_no_others(project: Project) -> None:
    credential_revoke(project=project, credential=CREDENTIAL, now=NOW)
    credential_revoke(
        project=project, credential="crd_bbbbbbbbbbbbbbbb", now=NOW + timedelta(minutes=1)
    )
    session_end(node="node-1", boot="00ff", allocation=1, now=NOW)
    session_end(node="node-1", boot="00ff", allocation=2, now=NOW + timedelta(days=30))
    project_limits_set(project=project, limits=ProjectLimits())
    holders.purge(now=NOW + LONGEST + timedelta(seconds=1))
    assert CredentialOverride.objects.get().credential == "crd_bbbbbbbbbbbbbbbb"
    assert EndedSession.objects.get().allocation == 2
    assert ProjectLimit.objects.count() == 1


def username_of(credential: str, project: str = "prj_a") -> str:
    return f"{int(NOW.timestamp())}:{project}/{credential}"


def test_purge_removes_usernames_that_ended_and_messages_that_were_read() -> None:
    now = timezone.now()  # the ids in the stream are of Valkey's own clock
    ended, lives = username_of("ended"), username_of("lives")
    username_announce(username=ended, expires_at=now + timedelta(seconds=1), now=now)
    username_announce(username=lives, expires_at=now + timedelta(hours=2), now=now)
    assert UsernameAnnounce(ended, (now + timedelta(seconds=1)).timestamp()) in published()
    holders.purge(now=now + timedelta(hours=1))
    assert valkey().zscore(ANNOUNCED, ended) is None
    assert valkey().zscore(ANNOUNCED, lives) is not None
    assert not any(isinstance(message, UsernameAnnounce) for message in published())


def test_announced_usernames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.publishing.ANNOUNCED_MAX", 2)
    for hours, name in ((3, "late"), (1, "soon"), (2, "between")):
        expires_at = NOW + timedelta(hours=hours)
        username_announce(username=username_of(name), expires_at=expires_at, now=NOW)
    left = [username_of(name).encode() for name in ("between", "late")]
    assert valkey().zrange(ANNOUNCED, 0, -1) == left


def test_no_project_takes_the_room_of_the_others_for_announced_usernames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.publishing.ANNOUNCED_PER_PROJECT_MAX", 2)
    start = timezone.now()

    def announce(username: str, minutes: int, now: datetime = start) -> None:
        expires_at = start + timedelta(minutes=minutes)
        username_announce(username=username, expires_at=expires_at, now=now)

    announce(username_of("short", "prj_b"), 10)
    announce(username_of("first"), 20)
    announce(username_of("second"), 30)
    with pytest.raises(AnnouncedFullError):
        announce(username_of("third"), 60)
    announce(username_of("first"), 40)  # it counts once
    announce(username_of("other", "prj_b"), 10)
    expected = {username_of(name) for name in ("first", "second")}
    expected |= {username_of(name, "prj_b") for name in ("short", "other")}
    known = cast("list[bytes]", valkey().zrange(ANNOUNCED, 0, -1))
    assert {name.decode() for name in known} == expected
    announce(username_of("third"), 60, start + timedelta(minutes=30))  # the second has ended


def test_count_of_a_projects_announced_usernames_ends_with_the_last_of_them() -> None:
    now = timezone.now()
    for hours, name in ((1, "soon"), (3, "late"), (2, "between")):
        expires_at = now + timedelta(hours=hours)
        username_announce(username=username_of(name), expires_at=expires_at, now=now)
    key = ANNOUNCED_OF.format(project="prj_a")
    assert valkey().zrange(key, 0, -1) == [b"soon", b"between", b"late"]
    assert valkey().expiretime(key) == math.ceil((now + timedelta(hours=3)).timestamp())


def test_what_is_no_username_is_not_announced() -> None:
    with pytest.raises(ControlError):
        username_announce(username="somebody", expires_at=NOW, now=NOW)
    assert valkey().exists(ANNOUNCED) == 0


def test_no_project_takes_the_room_of_the_others_for_overrides(
    project: Project, organisation: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.services.control.OVERRIDES_PER_PROJECT_MAX", 2)
    first, second, third = (f"crd_{letter * 16}" for letter in "abc")
    for credential in (first, second):
        credential_revoke(project=project, credential=credential, now=NOW)
    with pytest.raises(ControlError, match="2 credentials of this project"):
        credential_revoke(project=project, credential=third, now=NOW)
    assert not CredentialOverride.objects.filter(credential=third).exists()
    credential_limit(project=project, credential=first, allocations_max=1, now=NOW)
    other = Project.objects.create(organisation=organisation, name="Other")
    credential_revoke(project=other, credential=third, now=NOW)
    credential_revoke(project=project, credential=third, now=NOW + LONGEST)
