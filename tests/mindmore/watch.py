"""A supervisor with one child, in a process of its own: it takes over signals and children.

python -m tests.mindmore.watch PROGRAM
"""

from __future__ import annotations

import os
import sys

from mindmore.processes import Command
from mindmore.supervisor import Supervisor


def say(name: str, line: str) -> None:
    sys.stdout.write(f"{name}: {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    supervisor = Supervisor(say)
    command = Command("child", [sys.argv[1]], dict(os.environ))
    child = supervisor.start(command, lambda: True)
    supervisor.wait_until_ready([child], 5)
    say("process", str(child.process.pid))
    supervisor.watch()
    supervisor.stop([(("child",), 1)], 2)
