"""The demo organisation: what a fresh installation greets its first visitor with.

Seeded once. `demo.json` (mode 600) in the data directory holds for scripts what `manage.py up`
prints for people; its addresses follow the settings at every start, its secrets stay until they
are changed or revoked.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from allauth.account.models import EmailAddress
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.models import User
from accounts.selectors import api_key_authenticate
from accounts.services import api_key_create, organisation_create, project_create
from mindmore.installation import file_write

EMAIL = "demo@example.org"
PASSWORD_BYTES = 12
DEMO_FILE = "demo.json"


@dataclass(frozen=True)
class Demo:
    """What `demo.json` holds."""

    web_url: str
    email: str
    password: str
    api_key: str
    turn_host: str
    turn_port: int
    organisation: str
    project: str

    @classmethod
    def read(cls, path: Path) -> Demo | None:
        """The demo of an earlier start, if it is whole."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def demo_seed(*, home: Path) -> None:
    """Make the demo where this database or this data directory has none; write `demo.json`."""
    path = home / DEMO_FILE
    demo = Demo.read(path)
    with transaction.atomic():
        if demo is None or not User.objects.filter(email=EMAIL).exists():
            demo = _create()
        # What was revoked or changed since is no more offered to anybody.
        user = User.objects.get(email=EMAIL)
        demo = replace(
            demo,
            api_key=demo.api_key if api_key_authenticate(key=demo.api_key) else "",
            password=demo.password if user.check_password(demo.password) else "",
            web_url=settings.SITE_URL,
            turn_host=settings.TURN_HOST,
            turn_port=settings.TURN_PORT,
        )
        # Before the commit: a crash in between leaves a file without a user, which is made anew.
        file_write(path, json.dumps(asdict(demo), indent=2) + "\n")


def _create() -> Demo:
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    user = User.objects.filter(email=EMAIL).first() or User(email=EMAIL, name="Demo")
    user.is_sixteen_or_older = True
    user.age_stated_at = timezone.now()
    user.set_password(password)
    user.save()
    EmailAddress.objects.update_or_create(
        user=user, email=EMAIL, defaults={"verified": True, "primary": True}
    )
    organisation = organisation_create(owner=user, name="Demo")
    project = project_create(organisation=organisation, name="Demo")
    _, api_key = api_key_create(project=project, name="Demo")
    return Demo(
        web_url="",
        email=EMAIL,
        password=password,
        api_key=api_key,
        turn_host="",
        turn_port=0,
        organisation=organisation.public_id,
        project=project.public_id,
    )
