"""A registry and an operator to write policies from."""

from __future__ import annotations

from privacy.cookies import Cookie
from privacy.policy.operator import Operator
from privacy.registry import Category, Purpose, Registry
from privacy.retention.classes import ACCOUNT, CONNECTION_LOGS

OPERATOR = Operator(
    service_name="Mindmore.ai",
    host="mindmore.example",
    https=True,
    legal_entity="Example GmbH",
    legal_address="1 Example Street, 10115 Berlin, Germany",
    dpo_email="dpo@mindmore.example",
    server_location="Germany",
    processors=("hetzner",),
)
COOKIES = [Cookie("session", "Keeps you signed in", "14 days")]


def sample_registry() -> Registry:
    """A service with accounts and connection logs, and nothing else."""
    registry = Registry()
    registry.register_service("TURN and STUN relay")
    registry.register(
        "accounts.User",
        category=Category.ACCOUNT,
        purposes=(Purpose.PROVIDE,),
        retention=ACCOUNT,
        personal={"email": "email address", "name": "name"},
    )
    registry.register(
        "relay.Session",
        category=Category.CONNECTION_LOGS,
        purposes=(Purpose.SECURITY, Purpose.PROVIDE),
        retention=CONNECTION_LOGS,
        personal={"client_address": "client & peer IP addresses and ports"},
    )
    return registry
