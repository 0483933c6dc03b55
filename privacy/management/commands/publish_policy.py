"""`manage.py publish_policy`: publish the policy where it says something new."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from privacy.cookies import cookie_register
from privacy.policy.compose import policy_compose
from privacy.policy.operator import operator_load
from privacy.registry import registry
from privacy.services import policy_publish


class Command(BaseCommand):
    help = "Publish the privacy policy as a new version, if it differs from the current one."

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        operator = operator_load()
        try:
            document = policy_compose(
                registry=registry, operator=operator, cookies=cookie_register()
            )
            version = policy_publish(document=document, operator=operator, now=timezone.now())
        except ImproperlyConfigured as error:
            raise CommandError(f"the privacy policy cannot be published: {error}") from error
        if not verbosity:
            return
        if version:
            self.stdout.write(f"published version {version.number}, SHA-256 {version.sha256}")
        else:
            self.stdout.write("the current version says the same: nothing to publish")
