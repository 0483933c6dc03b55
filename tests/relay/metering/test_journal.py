"""The journal: what a flush confirmed is there after any end, and a failing disk loses nothing."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from relay.metering.journal import (
    BootDirectory,
    Journal,
    _write_all,
    boot_directories,
    segment_lines,
)
from relay.metering.records import AuthenticationRecord, SessionRecord, record_decode

EVENT = AuthenticationRecord("n", "b", 1, 0.0, None, "192.0.2.1", 1, "udp", "accepted")

FLUSH_UNTIL_KILLED = """
import sys
from pathlib import Path
from relay.metering.journal import Journal
from relay.metering.records import SessionRecord
journal = Journal(directory=Path(sys.argv[1]), node="n", boot=sys.argv[2])
number = 0
while True:
    for _ in range(500):
        number += 1
        journal.append(SessionRecord("n", "b", number, 0.0, "p", "192.0.2.1", 1, "udp", 1))
    assert journal.flush()
    print(number, flush=True)
"""


def session(number: int) -> SessionRecord:
    return SessionRecord("n", "b", number, 0.0, "p", "192.0.2.1", 1, "udp", 1)


def make(directory: Path, boot: str = "b", **options: int) -> Journal:
    return Journal(directory=directory, node="n", boot=boot, **options)


def numbers(directory: Path) -> list[int]:
    found = []
    for boot in boot_directories(directory):
        for segment in boot.segments():
            for line in segment_lines(segment):
                record = record_decode(line)
                assert isinstance(record, SessionRecord)
                found.append(record.allocation)
    return found


class FullDisk:
    """`os.fsync` of a disk that is full until told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, file: int) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self._fsync(file)


class Watched:
    """`os.fsync` and `os.rename` as they are, and what was called in which order on what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self._fsync, self._rename = os.fsync, os.rename
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "rename", self.rename)

    def fsync(self, file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        self.seen.append(("fsync", path.name, path.read_bytes() if path.is_file() else b""))
        self._fsync(file)

    def rename(self, source: Path, target: Path) -> None:
        content = source.read_bytes() if source.is_file() else b""
        self.seen.append(("rename", f"{source.name} {target.name}", content))
        self._rename(source, target)


def test_segment_is_on_disk_before_it_has_its_name_and_the_name_before_the_flush_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make(tmp_path)
    watched = Watched(monkeypatch)
    journal.append(session(1))
    assert journal.flush()
    [segment] = BootDirectory(journal.directory).segments()
    assert watched.seen == [
        ("fsync", "000001.part", segment.read_bytes()),
        ("rename", "000001.part 000001.jsonl", segment.read_bytes()),
        ("fsync", journal.directory.name, b""),
    ]


def test_directory_of_a_boot_is_on_disk_before_its_first_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    make(tmp_path)
    assert watched.seen == [("rename", ".n-b n-b", b""), ("fsync", tmp_path.name, b"")]


def test_nothing_is_on_disk_before_the_flush(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.append(session(1))
    assert numbers(tmp_path) == []
    assert journal.flush()
    assert numbers(tmp_path) == [1]


def test_flush_without_records_makes_no_segment(tmp_path: Path) -> None:
    journal = make(tmp_path)
    assert journal.flush()
    assert [path.name for path in journal.directory.iterdir()] == ["live"]


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    journal = make(tmp_path / "journal")
    journal.append(session(1))
    journal.flush()
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
    assert {path.stat().st_mode & 0o077 for path in journal.directory.iterdir()} == {0}


def test_large_flush_becomes_several_segments_in_order(tmp_path: Path) -> None:
    journal = make(tmp_path, segment_bytes_max=1000)
    for number in range(100):
        journal.append(session(number))
    journal.flush()
    assert len(BootDirectory(journal.directory).segments()) > 10
    assert numbers(tmp_path) == list(range(100))


def test_segments_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("999999.jsonl", "1000000.jsonl", "000002.jsonl", "000003.part", "notes"):
        (tmp_path / name).touch()
    names = [path.name for path in BootDirectory(tmp_path).segments()]
    assert names == ["000002.jsonl", "999999.jsonl", "1000000.jsonl"]


def test_boot_name_used_twice_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(OSError, match="b"):
        make(tmp_path)


def test_directory_tells_node_and_boot(tmp_path: Path) -> None:
    Journal(directory=tmp_path, node="eu-1.example", boot="0f3a")
    [boot] = boot_directories(tmp_path)
    assert (boot.node, boot.boot) == ("eu-1.example", "0f3a")


@pytest.mark.parametrize(("node", "boot"), [("a/b", "c"), ("", "c"), ("a", "b-c"), (".a", "b")])
def test_names_that_are_no_directory_name_are_refused(tmp_path: Path, node: str, boot: str) -> None:
    with pytest.raises(ValueError, match="letters"):
        Journal(directory=tmp_path, node=node, boot=boot)


def test_full_disk_keeps_the_records_and_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = make(tmp_path)
    disk = FullDisk(monkeypatch)
    for number in (1, 2, 3):
        journal.append(session(number))
        assert not journal.flush()
    assert "No space left" in str(journal.error)
    assert journal.records_waiting == 3
    synced_at = journal.synced_at
    disk.full = False
    journal.append(session(4))
    assert journal.flush()
    assert journal.synced_at > synced_at
    assert journal.records_waiting == 0
    assert journal.error is None
    assert sorted(set(numbers(tmp_path))) == [1, 2, 3, 4]
    assert journal.records_dropped == 0
    said = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert said == ["journal_failing", "journal_recovered"]
    assert not list(tmp_path.rglob("*.part"))


def test_what_waits_in_memory_is_bounded_and_events_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line_bytes = 200
    journal = make(tmp_path, pending_bytes_max=100 * line_bytes)
    disk = FullDisk(monkeypatch)
    for _ in range(1000):
        journal.append(EVENT)
    assert not journal.flush()
    events_dropped = journal.records_dropped
    assert events_dropped > 900
    for number in range(20):
        journal.append(session(number))
    assert journal.records_dropped == events_dropped  # half of the room is kept for usage
    for number in range(1000):
        journal.append(session(number))
    assert journal.records_dropped > events_dropped
    disk.full = False
    assert journal.flush()
    journal.append(EVENT)
    assert journal.flush()  # and there is room again


def test_append_goes_on_while_a_flush_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make(tmp_path)
    entered, leave = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(file: int) -> None:
        entered.set()
        assert leave.wait(10)
        fsync(file)

    monkeypatch.setattr(os, "fsync", slow)
    journal.append(session(1))
    flush = threading.Thread(target=journal.flush)
    flush.start()
    assert entered.wait(10)
    journal.append(session(2))
    leave.set()
    flush.join()
    assert numbers(tmp_path) == [1]
    assert journal.flush()
    assert numbers(tmp_path) == [1, 2]


def test_line_cut_short_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment = tmp_path / "000001.jsonl"
    segment.write_bytes(b'{"a":1}\n{"b":')
    assert segment_lines(segment) == [b'{"a":1}']
    assert "cut short" in caplog.text


def test_lock_tells_a_living_relay_from_a_dead_one(tmp_path: Path) -> None:
    journal = make(tmp_path)
    boot = BootDirectory(journal.directory)
    with boot.claim() as last_flush_at:
        assert last_flush_at is None
    journal.close()
    with boot.claim() as last_flush_at:
        assert last_flush_at is not None
    boot.remove()
    assert boot_directories(tmp_path) == []
    assert boot.segments() == []
    with boot.claim() as last_flush_at:
        assert last_flush_at is None


def test_flush_that_comes_after_the_end_says_nothing_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = make(tmp_path)
    journal.append(session(1))
    assert journal.close()
    with (tmp_path / "another file").open("w") as other:  # it may get the number of `live`
        os.utime(other.fileno(), (0, 0))
        assert journal.flush()
        assert os.fstat(other.fileno()).st_mtime == 0
    assert journal.error is None
    assert not capsys.readouterr().err


def test_write_that_is_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    class Slow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:7])

    lines = b"".join(b"line %d\n" % number for number in range(100))
    with Slow(tmp_path / "segment", "w") as segment:
        _write_all(segment, lines)
    assert (tmp_path / "segment").read_bytes() == lines


def test_every_flush_shows_that_the_relay_lives(tmp_path: Path) -> None:
    for boot, flushes in (("b1", 0), ("b2", 1)):
        journal = make(tmp_path, boot)
        os.utime(journal.directory / "live", (0, 0))
        for _ in range(flushes):
            journal.flush()
        os.close(journal._live)  # what kill -9 does
        with BootDirectory(journal.directory).claim() as last_flush_at:
            assert last_flush_at is not None
            assert (last_flush_at > 0) == bool(flushes)


def test_directory_that_another_shipper_removes_is_not_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make(tmp_path)
    journal.close()
    boot = BootDirectory(journal.directory)
    flock = fcntl.flock

    def removed_meanwhile(file: int, operation: int) -> None:
        boot.remove()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with boot.claim() as last_flush_at:
        assert last_flush_at is None


def test_time_of_the_last_flush_outlives_the_directory(tmp_path: Path) -> None:
    journal = make(tmp_path)
    journal.close()
    os.utime(journal.directory / "live", (1000, 1000))
    boot = BootDirectory(journal.directory)
    with boot.claim() as last_flush_at:
        boot.remove()
        assert last_flush_at == 1000


def test_killed_relay_loses_nothing_that_a_flush_confirmed(tmp_path: Path) -> None:
    for run in range(5):
        directory = tmp_path / str(run)
        relay = subprocess.Popen(
            [sys.executable, "-c", FLUSH_UNTIL_KILLED, str(directory), "b"],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert relay.stdout is not None
        confirmed = [relay.stdout.readline() for _ in range(3 + run)]
        relay.send_signal(signal.SIGKILL)
        confirmed += relay.stdout.readlines()
        relay.stdout.close()
        relay.wait()
        last = max(int(line) for line in confirmed if line.endswith(b"\n"))
        found = numbers(directory)
        assert found == list(range(1, len(found) + 1))
        assert last <= len(found) <= last + 500
        [boot] = boot_directories(directory)
        with boot.claim() as last_flush_at:
            assert last_flush_at is not None
