"""What privacy itself holds: nothing about a person."""

from __future__ import annotations

from privacy.registry import registry

registry.register_impersonal(
    "privacy.PolicyVersion", because="the published policy, the same for everybody"
)
registry.register_impersonal(
    "privacy.PurgeRecord", because="names of tables and days, and counts of rows"
)
