"""What views say of the requests they take."""

from __future__ import annotations

from django.http import HttpRequest

from accounts.models import User


class PersonalRequest(HttpRequest):
    """A request behind `login_required`."""

    user: User
