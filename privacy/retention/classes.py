"""Retention classes: how long personal data stays, in section 7 of the policy and in the code.

A class with a `period` ends by the calendar: somebody registers a holder for it with
`privacy.retention.engine`, which deletes what is older. A class without one ends with an event
(an account is closed) or is set by a law that counts otherwise (tax records).
The policy's table is written from these objects, so that text and code cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class RetentionClass:
    """One row of section 7.

    Attributes:
        name: the word used in records and on the command line.
        policy_category: left column of the policy's table.
        policy_period: right column of the policy's table.
        period: how long data of this class stays; None where no calendar decides.
        claim: the claim of `privacy/policy/claims.toml` that this row makes.
    """

    name: str
    policy_category: str
    policy_period: str
    period: timedelta | None
    claim: str


CONNECTION_LOGS = RetentionClass(
    name="connection_logs",
    policy_category="Connection logs",
    policy_period="30 days",
    period=timedelta(days=30),
    claim="S-34",
)
ACCOUNT = RetentionClass(
    name="account",
    policy_category="Account records",
    policy_period="As long as your account exists",
    period=None,
    claim="S-74",
)
BILLING = RetentionClass(
    name="billing",
    policy_category="Billing records",
    policy_period="Up to 10 years to comply with tax and accounting laws",
    period=None,
    claim="S-36",
)
SIGN_IN = RetentionClass(
    name="sign_in",
    policy_category="Sign-in sessions and unused confirmation links",
    policy_period="14 days",
    period=timedelta(days=14),
    claim="S-75",
)
SUPPORT = RetentionClass(
    name="support",
    policy_category="Support communications",
    policy_period="2 years after the matter is closed",
    period=None,
    claim="S-37",
)

# The order of the policy's table.
RETENTION_CLASSES = (CONNECTION_LOGS, ACCOUNT, BILLING, SIGN_IN, SUPPORT)
