"""What the database holds of a password: nothing that can be read."""

from __future__ import annotations

import pytest
from django.contrib.auth.hashers import identify_hasher
from django.db import connection

from accounts.models import User
from tests.marker_search import find_marker
from tests.people import PASSWORD, person


@pytest.mark.claim("S-78")
def test_database_never_holds_a_password(alice: User) -> None:
    assert identify_hasher(alice.password).verify(PASSWORD, alice.password)
    assert find_marker(connection, [], [alice.email]) != []
    assert find_marker(connection, [], [PASSWORD]) == []


def test_same_password_has_another_hash_for_everybody(alice: User) -> None:
    assert person("Dora").password != alice.password
