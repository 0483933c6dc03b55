"""The people of the tests."""

from __future__ import annotations

from allauth.account.models import EmailAddress

from accounts.models import User

PASSWORD = "correct horse battery"


def person(name: str) -> User:
    """A person with a confirmed address, name@example.org, and the password `PASSWORD`."""
    email = f"{name.lower()}@example.org"
    user = User.objects.create_user(email=email, password=PASSWORD, name=name)
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    return user
