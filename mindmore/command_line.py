"""Django's commands; a wrong setting gives one line instead of a traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import InterfaceError, OperationalError

from mindmore.environment import bare_environment, given_names
from mindmore.logs import DATABASE_AWAY
from mindmore.variables import PREFIX, unknown_warnings
from relay.compiled import compiled_use

HOME = Path(__file__).resolve().parent.parent / ".mindmore"
ASKING = "relay_"  # what begins so asks running relays
RELAY = ["runrelay"]


def main(argv: list[str]) -> int:
    """Run `manage.py <command>`; returns the exit code."""
    try:
        if "".join(argv[1:2]).startswith(ASKING):
            settings_load()
            for line in unknown_warnings(given_names(HOME)):
                print(line, file=sys.stderr)
        if argv[1:2] == RELAY and settings.TURN_COMPILED:
            compiled_use()
        execute_from_command_line(argv)
    except ImproperlyConfigured as error:
        print(error, file=sys.stderr)
        return 1
    except (OperationalError, InterfaceError) as error:
        print(
            f"{DATABASE_AWAY} ({type(error).__name__}): start it, or `make run`, which brings one; "
            "where DATABASE_URL is set, see that it names the right server",
            file=sys.stderr,
        )
        return 1
    return 0


def settings_load() -> None:
    """Load the settings; where they are wrong, only what it takes to reach the running relays.

    Those run with what was right when they were started, and whoever has to end a call or to look
    is not kept from it by a line that is wrong by now.

    Raises:
        ImproperlyConfigured: the addresses of Valkey or the database are wrong themselves.
    """
    try:
        settings.INSTALLED_APPS  # noqa: B018 - to load them
    except ImproperlyConfigured as error:
        bare = bare_environment(default_home=HOME)
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            del os.environ[name]
        os.environ.update(bare)
        settings.INSTALLED_APPS  # noqa: B018 - as above
        print(
            f"warning: {error}. This asks the relays all the same, with REDIS_URL and DATABASE_URL"
            " only",
            file=sys.stderr,
        )
