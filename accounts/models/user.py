"""The person who signs in."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models


class UserManager(BaseUserManager["User"]):
    def create_user(
        self,
        *,
        email: str,
        password: str | None,
        name: str = "",
        age_stated_at: datetime | None = None,
    ) -> User:
        """Store a person; `age_stated_at` is when they said that they are 16 or older."""
        user = self.model(
            email=email.strip().lower(),
            name=name,
            is_sixteen_or_older=age_stated_at is not None,
            age_stated_at=age_stated_at,
        )
        user.set_password(password)
        user.save()
        return user

    def create_superuser(self, *, email: str, password: str | None, name: str = "") -> User:
        """Store an operator, who may use the admin once a second factor is set up."""
        user = self.create_user(email=email, password=password, name=name)
        user.is_staff = user.is_superuser = True
        user.save(update_fields=["is_staff", "is_superuser"])
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        """Addresses are stored in lower case and looked up so."""
        return self.get(email=(username or "").lower())


class User(AbstractBaseUser, PermissionsMixin):
    """One person, known by e-mail address; the policy's "Account Information".

    The age is a statement and its time; a birth date is never asked for.
    """

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=150)
    is_sixteen_or_older = models.BooleanField(default=False)
    age_stated_at = models.DateTimeField(null=True, blank=True)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["name"]

    objects = UserManager()

    def __str__(self) -> str:
        # Ends up in logs, tracebacks and the admin's history: no place for name or address.
        return f"person {self.pk}"

    def get_full_name(self) -> str:
        """The name as the person wrote it."""
        return self.name

    def get_short_name(self) -> str:
        """The name as the person wrote it: what is a given name is not ours to guess."""
        return self.name
