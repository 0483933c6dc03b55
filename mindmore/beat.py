"""Celery's beat: puts each job of the schedule (settings) into the queue when its time comes.

It knows the jobs by their names alone, so it loads neither Django's apps nor their tasks, which
halves its memory.
"""

from __future__ import annotations

from logging.config import dictConfig

from celery import Celery
from celery.signals import beat_init, setup_logging

from mindmore.logs import LOGGING
from mindmore.supervisor import notify_ready

app = Celery("mindmore", fixups=[])
app.config_from_object("mindmore.settings", namespace="CELERY")


@setup_logging.connect  # type: ignore[untyped-decorator]
def logging_set_up(**_: object) -> None:
    """One line for each failure."""
    dictConfig(LOGGING)


@beat_init.connect  # type: ignore[untyped-decorator]
def ready(**_: object) -> None:
    """Jobs are sent from now on."""
    notify_ready()
