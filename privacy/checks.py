"""System checks: a service that would break its own privacy policy does not start.

E001  the operator's names and addresses are missing or placeholders (production)
E002  a field nobody classified, or a classification of something that does not exist
E003  personal data with a retention period that no holder deletes
E004  sign-in sessions that last longer than section 7 says
E005  a table in the database that belongs to no model (`manage.py check --database default`)
W001  mail goes out by another host, and no processor delivers it (production)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from privacy.policy.operator import operator_load, operator_problems
from privacy.registry import registry
from privacy.retention.classes import SIGN_IN
from privacy.retention.engine import holders

OWN_MAIL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", ""})


@register()
def operator_check(**options: Any) -> list[CheckMessage]:
    if not settings.PRODUCTION:
        return []
    return [Error(problem, id="privacy.E001") for problem in operator_problems(operator_load())]


@register()
def mail_check(**options: Any) -> list[CheckMessage]:
    host = settings.EMAIL_HOST
    if not settings.PRODUCTION or host in OWN_MAIL_HOSTS or operator_problems(operator_load()):
        return []
    if any("mail" in processor.purpose.lower() for processor in operator_load().processors_used()):
        return []
    return [
        Warning(
            f"mail goes out by {host}, and the policy names nobody who delivers it",
            hint='add "name | Delivery of email | country" to MINDMORE_PROCESSORS',
            id="privacy.W001",
        )
    ]


@register()
def classification_check(**options: Any) -> list[CheckMessage]:
    installed = apps.get_models(include_auto_created=True)
    return [Error(problem, id="privacy.E002") for problem in registry.problems(installed)]


@register()
def deletion_check(**options: Any) -> list[CheckMessage]:
    return [Error(problem, id="privacy.E003") for problem in holders.problems(registry)]


@register()
def session_age_check(**options: Any) -> list[CheckMessage]:
    period = SIGN_IN.period
    if period and period.total_seconds() < settings.SESSION_COOKIE_AGE:
        return [Error("SESSION_COOKIE_AGE is longer than section 7 promises", id="privacy.E004")]
    return []


@register(Tags.database)
def tables_check(
    app_configs: Sequence[AppConfig] | None = None,
    databases: Sequence[str] | None = None,
    **options: Any,
) -> list[CheckMessage]:
    if not databases:
        return []
    return [
        Error(f"table {table} belongs to no model: nobody says what it holds", id="privacy.E005")
        for table in tables_without_model()
    ]


def tables_without_model() -> list[str]:
    """The tables of the database that no installed model owns; partitions count to their table."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT format('%I.%I', nspname, relname), relname
              FROM pg_class
              JOIN pg_namespace ON pg_namespace.oid = relnamespace
             WHERE relkind IN ('r', 'p', 'm', 'f')
               AND NOT relispartition
               AND nspname NOT IN ('pg_catalog', 'information_schema')
               AND nspname NOT LIKE 'pg\\_temp\\_%' AND nspname NOT LIKE 'pg\\_toast%'
             ORDER BY 1
            """
        )
        found: list[tuple[str, str]] = cursor.fetchall()
    owned = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    owned.add(MigrationRecorder(connection).migration_qs.model._meta.db_table)
    return [qualified for qualified, table in found if table not in owned]
