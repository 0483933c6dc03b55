"""What is read of accounts: whose projects, which keys, what a person may do."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from django.db.models import QuerySet
from django.http import Http404
from django.shortcuts import get_object_or_404

from accounts.api_keys import api_key_hash, api_key_is_well_formed, api_key_prefix
from accounts.identifiers import is_project_public_id
from accounts.models import ApiKey, Membership, Organisation, Project, User
from accounts.permissions import Permission, roles_with


def api_key_authenticate(*, key: str) -> ApiKey | None:
    """The live API key that `key` is the text of, with its project; None where there is none."""
    return api_keys_authenticate(keys=[key]).get(key)


def api_keys_authenticate(*, keys: Collection[str]) -> dict[str, ApiKey]:
    """Those of `keys` that are texts of live API keys, with what they belong to: one query.

    The index finds by prefix, which is no secret; the hash is compared in constant time.
    """
    hashes = {key: api_key_hash(key) for key in keys if api_key_is_well_formed(key)}
    if not hashes:
        return {}
    prefixes = {api_key_prefix(key) for key in hashes}
    # In no order: the model's own would cost a fifth of the look-up.
    candidates = ApiKey.objects.filter(prefix__in=prefixes, revoked_at=None).order_by()
    stored = list(candidates.select_related("project"))
    return {
        key: api_key
        for key, key_hash in hashes.items()
        for api_key in stored
        if hmac.compare_digest(api_key.key_hash, key_hash)
    }


def organisations_for(
    *, user: User, permission: Permission = Permission.PROJECTS_READ
) -> QuerySet[Organisation]:
    """The organisations in which `user` holds `permission`."""
    return Organisation.objects.filter(
        pk__in=Membership.objects.filter(user=user, role__in=roles_with(permission)).values(
            "organisation"
        )
    )


def memberships_for(*, user: User) -> QuerySet[Membership]:
    """Where `user` is a member, by the organisation's name."""
    return user.memberships.select_related("organisation").order_by("organisation__name", "pk")


def projects_for(*, user: User) -> QuerySet[Project]:
    """The projects that `user` may see, with their organisations."""
    organisations = organisations_for(user=user, permission=Permission.PROJECTS_READ)
    return Project.objects.filter(organisation__in=organisations).select_related("organisation")


def project_for(*, user: User, public_id: str) -> Project:
    """The project, where `user` may see it.

    Raises:
        Http404: there is none, or it belongs to strangers; the answer does not tell which.
    """
    if not is_project_public_id(public_id):
        raise Http404
    return get_object_or_404(projects_for(user=user), public_id=public_id)


def api_key_for(*, project: Project, prefix: str) -> ApiKey:
    """The key of `project` with that prefix.

    Raises:
        Http404: there is none.
    """
    api_key = project.api_keys.filter(prefix=prefix).first()
    if api_key is None:
        raise Http404
    return api_key


def user_may(*, user: User, organisation: Organisation, permission: Permission) -> bool:
    """Whether a role of `user` in `organisation` holds `permission`."""
    return organisations_for(user=user, permission=permission).filter(pk=organisation.pk).exists()
