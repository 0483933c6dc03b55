from __future__ import annotations

import sys

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connection
from redis import Redis
from redis.exceptions import RedisError

from accounts.models import User
from mindmore.checks import site_url_check, turn_host_check
from mindmore.demo import demo_seed
from privacy.checks import operator_check

CONNECT_SECONDS_MAX = 5


class Command(BaseCommand):
    help = "Bring database, static files and demo up to this version; `manage.py up` runs it."
    requires_system_checks = ()

    def handle(self, *args: object, **options: object) -> None:
        self._check_settings()
        self._check_servers()
        call_command("migrate", interactive=False, verbosity=0)
        self.check(databases=["default"])
        call_command("publish_policy", verbosity=0)
        if settings.PRODUCTION:  # otherwise they are served from where they are written
            call_command("collectstatic", interactive=False, verbosity=0)
        if settings.DEMO:
            demo_seed(home=settings.MINDMORE_HOME)
        if settings.PRODUCTION and not User.objects.filter(is_superuser=True).exists():
            self.stdout.write(
                "nobody may open /admin/ yet: make the first operator with "
                f"`{sys.executable} manage.py createsuperuser`"
            )

    def _check_settings(self) -> None:
        problems = [problem.msg for problem in operator_check()]
        if problems:
            raise CommandError(f"the privacy policy needs these settings: {'; '.join(problems)}")
        problems = [problem.msg for problem in (*site_url_check(), *turn_host_check())]
        if problems:
            raise CommandError("; ".join(problems))

    def _check_servers(self) -> None:
        try:
            connection.ensure_connection()
        except Error as error:
            raise CommandError(
                f"cannot use the database of DATABASE_URL: {_first_line(error)}; correct it, or "
                "unset it to use the PostgreSQL that comes with Mindmore"
            ) from error
        try:
            Redis.from_url(settings.REDIS_URL, socket_connect_timeout=CONNECT_SECONDS_MAX).ping()
        except RedisError as error:
            raise CommandError(
                f"cannot use the server of REDIS_URL: {_first_line(error)}; correct it, or unset "
                "it to use the Valkey that comes with Mindmore"
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
