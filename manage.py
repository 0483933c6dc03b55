#!/usr/bin/env python
"""Django's command line, with Mindmore's settings."""

from __future__ import annotations

import os
import signal
import sys

if sys.argv[1:2] == ["runrelay"]:
    # A SIGHUP waits until the relay can reload: unheard it would end this process, or be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
if sys.argv[1:2] == ["up"]:
    # It makes what Django's settings need, and stays small by not loading Django.
    from mindmore.up import main
else:
    from mindmore.command_line import main

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mindmore.settings")
    sys.exit(main(sys.argv))
