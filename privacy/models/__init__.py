from __future__ import annotations

from privacy.models.policy_version import PolicyVersion
from privacy.models.purge_record import PurgeRecord

__all__ = ["PolicyVersion", "PurgeRecord"]
