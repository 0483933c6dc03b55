"""The register of cookies: every cookie this service may set, why, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Cookie:
    """One cookie, in the words of the policy."""

    name: str
    purpose: str
    lifetime: str


def cookie_register() -> list[Cookie]:
    """The cookies of this installation; their names come from the settings."""
    return [
        Cookie(
            settings.SESSION_COOKIE_NAME,
            "Keeps you signed in",
            # A passkey and the link that confirms an address sign in without asking.
            f"{_lifetime(settings.SESSION_COOKIE_AGE)}; until you close your browser if you sign "
            "in with your password and do not tick “Stay signed in”",
        ),
        Cookie(
            settings.CSRF_COOKIE_NAME,
            "Protects forms from being sent in your name by other sites",
            _lifetime(settings.CSRF_COOKIE_AGE),
        ),
    ]


def _lifetime(seconds: int | None) -> str:
    if seconds is None:
        return "Until you close your browser"
    return f"{seconds // DAY_SECONDS} days"
