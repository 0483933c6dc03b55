"""What accounts, and the third-party apps that serve it, hold about people.

Sign-in sessions hold who signed in, when and by which factor; neither address nor browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from allauth.account.models import EmailConfirmation
from django.contrib.sessions.models import Session
from django.db.models import QuerySet

from privacy.registry import Category, Purpose, registry
from privacy.retention.classes import ACCOUNT, SIGN_IN
from privacy.retention.engine import Holder, Part, holders
from privacy.retention.holders import row_holder

ROW_KEY = "row key"
POINTER = "points at a row of ours"
ROW_TIME = "time of the row, not of a person's doing"
CHOSEN_NAME = "names a thing, in words that the customer chose"
RATE_LIMITS = "cache: rate limits of signing up and in"

# --- accounts -------------------------------------------------------------------------------------
registry.register(
    "accounts.User",
    category=Category.ACCOUNT,
    purposes=(Purpose.PROVIDE,),
    retention=ACCOUNT,
    personal={
        "name": "name",
        "email": "email address",
        "is_sixteen_or_older": "your statement to be 16 or older, and its time",
        "age_stated_at": "your statement to be 16 or older, and its time",
        "created_at": "time of signing up",
    },
    technical={
        "id": ROW_KEY,
        "is_active": "switch of the account",
        "is_staff": "switch of the operator's people",
        "is_superuser": "switch of the operator's people",
    },
)
registry.register(
    "accounts.User",
    category=Category.ACCOUNT,
    purposes=(Purpose.SECURITY,),
    retention=ACCOUNT,
    personal={
        "password": "password (kept as a hash)",
        "last_login": "time of the last sign-in",
    },
)
registry.register(
    "accounts.Organisation",
    category=Category.ACCOUNT,
    purposes=(Purpose.PROVIDE, Purpose.BILLING),
    retention=ACCOUNT,
    personal={"name": "company name"},
    technical={"id": ROW_KEY, "public_id": "random name", "created_at": ROW_TIME},
)
registry.register(
    "accounts.Membership",
    category=Category.ACCOUNT,
    purposes=(Purpose.PROVIDE,),
    retention=ACCOUNT,
    personal={"role": "role in your organisation", "created_at": "role in your organisation"},
    technical={"id": ROW_KEY, "organisation": POINTER, "user": POINTER},
)
registry.register_technical(
    "accounts.Project",
    {
        "id": ROW_KEY,
        "organisation": POINTER,
        "public_id": "random name",
        "name": CHOSEN_NAME,
        "credential_ttl_seconds_max": "limit of the project",
        "created_at": ROW_TIME,
    },
)
registry.register_technical(
    "accounts.ApiKey",
    {
        "id": ROW_KEY,
        "project": POINTER,
        "name": CHOSEN_NAME,
        "prefix": "random name of the key",
        "key_hash": "hash of a random secret of the customer's server",
        "created_at": ROW_TIME,
        "revoked_at": ROW_TIME,
    },
)
for relation, other in {"groups": "group", "user_permissions": "permission"}.items():
    registry.register_technical(
        f"accounts.User_{relation}", {"id": ROW_KEY, "user": POINTER, other: POINTER}
    )

# --- Django ---------------------------------------------------------------------------------------
registry.register_impersonal(
    "auth.Permission", "contenttypes.ContentType", because="names of models, set by the code"
)
registry.register_impersonal(
    "auth.Group", "auth.Group_permissions", because="the operator's sets of permissions"
)
registry.register(
    "sessions.Session",
    category=Category.ACCOUNT,
    purposes=(Purpose.PROVIDE, Purpose.SECURITY),
    retention=SIGN_IN,
    personal={"session_data": "sign-in sessions"},
    technical={"session_key": "random name", "expire_date": "when the row ends"},
)
registry.register(
    "admin.LogEntry",
    category=Category.ACCOUNT,
    purposes=(Purpose.SECURITY,),
    retention=ACCOUNT,
    personal={
        "object_repr": "what our administrators changed in your account, and when",
        "change_message": "what our administrators changed in your account, and when",
        "action_time": "what our administrators changed in your account, and when",
    },
    technical={
        "id": ROW_KEY,
        "user": POINTER,
        "content_type": POINTER,
        "object_id": POINTER,
        "action_flag": "kind of change",
    },
)

# --- allauth --------------------------------------------------------------------------------------
registry.register(
    "account.EmailAddress",
    category=Category.ACCOUNT,
    purposes=(Purpose.PROVIDE,),
    retention=ACCOUNT,
    personal={"email": "email address"},
    technical={
        "id": ROW_KEY,
        "user": POINTER,
        "verified": "state of the address",
        "primary": "state of the address",
    },
)
registry.register(
    "account.EmailConfirmation",
    category=Category.ACCOUNT,
    purposes=(Purpose.PROVIDE,),
    retention=SIGN_IN,
    personal={"key": "unused confirmation links"},
    technical={"id": ROW_KEY, "email_address": POINTER, "created": ROW_TIME, "sent": ROW_TIME},
)
registry.register(
    "mfa.Authenticator",
    category=Category.ACCOUNT,
    purposes=(Purpose.SECURITY,),
    retention=ACCOUNT,
    personal={
        "data": "second factors, and when they were used",
        "last_used_at": "second factors, and when they were used",
    },
    technical={
        "id": ROW_KEY,
        "user": POINTER,
        "type": "kind of second factor",
        "created_at": ROW_TIME,
    },
)
registry.register_place(
    RATE_LIMITS,
    category=Category.ACCOUNT,
    purposes=(Purpose.SECURITY,),
    retention=SIGN_IN,
    personal={
        "key": "an unreadable fingerprint of your IP address (a keyed hash), for a few minutes "
        "after you sign up or in, so that nobody can guess passwords without end"
    },
)


# --- what ends by the calendar --------------------------------------------------------------------
def sessions_due(now: datetime) -> QuerySet[Session]:
    """Ended sessions; each ends within 14 days of its last change (`SESSION_COOKIE_AGE`)."""
    return Session.objects.filter(expire_date__lt=now)


def confirmations_due(now: datetime) -> QuerySet[Any]:
    """Confirmation links older than the period. The links we send are signed, not stored."""
    assert SIGN_IN.period is not None
    links: QuerySet[Any] = EmailConfirmation.objects.filter(created__lt=now - SIGN_IN.period)
    return links


def nothing_due(now: datetime) -> Sequence[Part]:
    """The cache forgets each of its entries by itself, within five minutes."""
    return ()


def nothing_purged(part: Part) -> int:
    """Never asked: nothing is ever due."""
    return 0


holders.register(
    row_holder("accounts.sessions", SIGN_IN, due=sessions_due, holds=["sessions.Session"])
)
holders.register(
    row_holder(
        "accounts.confirmation_links",
        SIGN_IN,
        due=confirmations_due,
        holds=["account.EmailConfirmation"],
    )
)
holders.register(
    Holder("accounts.rate_limits", SIGN_IN, (RATE_LIMITS,), nothing_due, nothing_purged)
)
