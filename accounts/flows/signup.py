"""Signing up: a person, their statement of age, and an organisation that they own.

allauth's form checks address and password and stores the person; what is ours follows in the same
transaction, so that either all of it is there or nothing.
"""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from accounts.models import Organisation, User
from accounts.services import organisation_create


@transaction.atomic
def signup_complete(*, user: User, name: str, organisation_name: str = "") -> Organisation:
    """Add to a person just stored what the form said, and make their organisation.

    Args:
        user: who has stated to be 16 or older; nobody else may get here.
        organisation_name: a person who trades alone may leave it out: their own name stands.
    """
    user.name = name
    user.is_sixteen_or_older = True
    user.age_stated_at = timezone.now()
    user.save(update_fields=["name", "is_sixteen_or_older", "age_stated_at"])
    return organisation_create(owner=user, name=organisation_name or name)
