from __future__ import annotations

from accounts.models.organisation import Membership, Organisation, Role
from accounts.models.project import ApiKey, Project
from accounts.models.user import User

__all__ = ["ApiKey", "Membership", "Organisation", "Project", "Role", "User"]
