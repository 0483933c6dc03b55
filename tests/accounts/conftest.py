from __future__ import annotations

import uuid

import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def apart(settings: Settings) -> None:
    """Tests share neither rate limits nor the patience that real password hashes need."""
    default = settings.CACHES["default"]
    settings.CACHES = {"default": {**default, "KEY_PREFIX": uuid.uuid4().hex}}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
