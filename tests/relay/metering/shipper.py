"""A shipper in a process of its own, to be killed: `python -m tests.relay.metering.shipper DIR`.

Says "ready", and begins when it is sent a line; ends when the journal is empty and everything is
rolled up. Where the database goes away it goes on trying.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import django
from django.db import DatabaseError, connection

django.setup()

from relay.services import shipping  # noqa: E402
from relay.services.usage import usage_roll_up  # noqa: E402
from tests.relay.metering.examples import NOW  # noqa: E402

shipping.BATCH_BYTES_MAX = 4000  # type: ignore[misc]  # many batches, many moments to die


def main() -> None:
    """Ship until nothing is left."""
    directory = Path(sys.argv[1])
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    left = True
    while left:
        try:
            shipping.journal_ship(directory=directory, now=NOW)
            left = usage_roll_up() > 0 or any(directory.rglob("*.jsonl"))
        except DatabaseError:
            connection.close()
            time.sleep(0.05)


main()
