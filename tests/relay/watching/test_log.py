"""Every line that a relay writes is one JSON object, and none holds a value that it was given."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from relay.compiled import build_directory, is_complete
from relay.log import fault_facts, log
from relay.metering.journal import Journal
from tests.relay.attacks.observe import log_lines
from tests.relay.interop.servers import server_running

ROOT = Path(__file__).resolve().parents[3]
SECRET = "198.51.100.77"

FAULTS = f"""
import asyncio, logging, sys, threading, warnings
import uvloop
from relay.log import log, log_install

log_install()
log("relay_started", node="n", port=1)
warnings.warn("a warning")
logging.getLogger("some.library").error("no route to %s", "{SECRET}")
logging.getLogger("some.library").info("not worth a line: %s", "{SECRET}")

def fail(address):
    raise ValueError(f"cannot take {{address}}")

async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(fail, "{SECRET}")
    forgotten = asyncio.create_task(failing())
    await asyncio.sleep(0.05)
    del forgotten
    await asyncio.sleep(0.05)

async def failing():
    fail("{SECRET}")

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
thread = threading.Thread(target=fail, args=("{SECRET}",))
thread.start()
thread.join()
fail("{SECRET}")
"""


def lines_of(code: str) -> tuple[list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return [json.loads(line) for line in done.stderr.splitlines()], done.stderr


def test_faults_and_warnings_of_any_kind_are_objects_without_values() -> None:
    lines, text = lines_of(FAULTS)
    assert SECRET not in text
    assert "cannot take" not in text
    events = [(line["event"], line["level"]) for line in lines]
    assert events == [
        ("relay_started", "info"),
        ("library_says", "warning"),
        ("library_says", "error"),
        *[("fault", "error")] * 4,
    ]
    assert lines[2]["message"] == "no route to %s"
    for fault in lines[3:]:
        assert fault["error"] == "ValueError"
        assert fault["at"].startswith("<string>:")


def test_line_has_time_level_event_and_process(capsys: Any) -> None:
    log("relay_started", node="n", port=3478)
    log("journal_failing", level="error", reason='say "why"\nand where')
    first, second = capsys.readouterr().err.splitlines()
    line = json.loads(first)
    assert list(line) == ["time", "level", "event", "pid", "node", "port"]
    moment = datetime.fromisoformat(line["time"])
    assert moment.utcoffset() is not None
    assert json.loads(second)["reason"] == 'say "why"\nand where'


def test_fault_names_the_line_that_raised_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        Journal(directory=tmp_path / "file", node="n", boot="b")
    assert re.fullmatch(r"relay/metering/journal\.py:\d+", fault_facts(caught.value)["at"])


@pytest.mark.parametrize("setting", ["on", "off"])
def test_relay_says_whether_it_is_compiled(tmp_path: Path, setting: str) -> None:
    with server_running("mindmore", tmp_path, {"MINDMORE_TURN_COMPILED": setting}) as server:
        (started,) = (line for line in log_lines(server) if line["event"] == "relay_started")
    assert started["compiled"] is (setting == "on" and is_complete(build_directory()))
