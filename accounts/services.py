"""What changes accounts: organisations, projects, API keys."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from accounts.api_keys import api_key_hash, api_key_prefix, api_key_text_make
from accounts.models import ApiKey, Membership, Organisation, Project, Role, User


@transaction.atomic
def organisation_create(*, owner: User, name: str) -> Organisation:
    """Store an organisation together with its first member, the owner."""
    organisation = Organisation.objects.create(name=name)
    Membership.objects.create(organisation=organisation, user=owner, role=Role.OWNER)
    return organisation


def project_create(*, organisation: Organisation, name: str) -> Project:
    """Store a project of `organisation`."""
    return Project.objects.create(organisation=organisation, name=name)


def api_key_create(*, project: Project, name: str) -> tuple[ApiKey, str]:
    """Make a key for `project`.

    Returns:
        What is stored, and the key itself, `mm_<prefix 8>_<43 url-safe characters>`: the one
        time that anybody sees it.
    """
    text = api_key_text_make()
    api_key = ApiKey.objects.create(
        project=project, name=name, prefix=api_key_prefix(text), key_hash=api_key_hash(text)
    )
    return api_key, text


def api_key_revoke(*, api_key: ApiKey) -> None:
    """Refuse the key from now on; a second time changes nothing."""
    ApiKey.objects.filter(pk=api_key.pk, revoked_at=None).update(revoked_at=timezone.now())
    api_key.refresh_from_db(fields=["revoked_at"])
