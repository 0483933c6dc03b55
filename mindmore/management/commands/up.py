from __future__ import annotations

import sys

from django.core.management.base import BaseCommand

from mindmore import up


class Command(BaseCommand):
    """Listed here for `manage.py help`; `manage.py up` itself goes there without Django."""

    help = "Start PostgreSQL, Valkey, relay, web, worker and beat, and watch over them."
    requires_system_checks = ()

    def handle(self, *args: object, **options: object) -> None:
        sys.exit(up.main(["manage.py", "up"]))
