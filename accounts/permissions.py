"""Who may do what: one table, asked by every view and template."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from accounts.models import Role


class Permission(StrEnum):
    """Something a member of an organisation does there."""

    PROJECTS_READ = "projects_read"
    PROJECTS_WRITE = "projects_write"  # projects and their API keys
    ADDRESSES_READ = "addresses_read"  # of clients and peers in the connection logs
    BILLING_READ = "billing_read"


_READ: Final = frozenset({Permission.PROJECTS_READ})
_BUILD: Final = _READ | {Permission.PROJECTS_WRITE, Permission.ADDRESSES_READ}

PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.OWNER: _BUILD | {Permission.BILLING_READ},
    Role.ADMIN: _BUILD | {Permission.BILLING_READ},
    Role.DEVELOPER: _BUILD,
    Role.BILLING: _READ | {Permission.BILLING_READ},
    Role.VIEWER: _READ,
}


def roles_with(permission: Permission) -> list[Role]:
    """The roles that hold `permission`."""
    return [role for role, held in PERMISSIONS.items() if permission in held]
