"""Celery's worker: runs the jobs of each app's `tasks.py`. What starts them is `mindmore.beat`."""

from __future__ import annotations

import os
import warnings
from logging.config import dictConfig

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.signals import setup_logging, worker_ready

from mindmore.logs import LOGGING
from mindmore.supervisor import notify_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mindmore.settings")

# Root in a container is usual, and no message is unpickled: JSON is all that the worker accepts.
warnings.filterwarnings("ignore", category=SecurityWarning)
# Told each time that the queue is away: jobs that run then go on, and are safe to run twice.
warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)

app = Celery("mindmore")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect  # type: ignore[untyped-decorator]
def logging_set_up(**_: object) -> None:
    """One line for each failure, as in the web process, instead of Celery's own."""
    dictConfig(LOGGING)


@worker_ready.connect  # type: ignore[untyped-decorator]
def ready(**_: object) -> None:
    """Jobs are taken from now on."""
    notify_ready()
