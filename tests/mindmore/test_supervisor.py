"""The supervisor with a child that can't be started for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.stack import ROOT


def test_child_that_cannot_be_started_again_is_tried_until_it_can(tmp_path: Path) -> None:
    program, away, runs = tmp_path / "program", tmp_path / "away", tmp_path / "runs"
    os.mkfifo(runs)
    program.write_text(f"#!/bin/sh\necho > '{runs}'\nexec sleep 60\n")
    program.chmod(0o755)
    watching = subprocess.Popen(
        [sys.executable, "-m", "tests.mindmore.watch", str(program)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout
    lines = iter(watching.stdout)
    try:
        process = int(next(lines).removeprefix("process: "))
        runs.read_bytes()  # waits until the shell has read its program
        program.rename(away)
        os.kill(process, signal.SIGKILL)
        assert next(lines).endswith("SIGKILL; starting it again in 0.5 seconds\n")
        failed = next(lines)
        assert failed.startswith("child: cannot start child")
        assert failed.endswith("starting it again in 1 seconds\n")
        assert next(lines).endswith("starting it again in 2 seconds\n")
        away.rename(program)
        assert next(lines) == "child: is ready again\n"
    finally:
        watching.terminate()
        assert watching.wait(10) == 0
        watching.stdout.close()
