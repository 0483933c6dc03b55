"""Announced usernames: found by their hash until their time is over, and bounded."""

from __future__ import annotations

from relay.core.integrity import userhash
from relay.core.usernames import Usernames


def known(usernames: Usernames) -> set[str]:
    for value, username in usernames.by_hash.items():
        assert value == userhash(username, "turn")
    return set(usernames.by_hash.values())


def test_username_is_known_until_its_time_is_over() -> None:
    usernames = Usernames("turn", 10)
    usernames.announce("a", 100)
    usernames.announce("b", 200)
    usernames.forget(99.9)
    assert known(usernames) == {"a", "b"}
    usernames.forget(100)
    assert known(usernames) == {"b"}
    usernames.forget(200)
    assert known(usernames) == set()


def test_announced_again_it_is_known_for_the_longer_time() -> None:
    usernames = Usernames("turn", 10)
    usernames.announce("a", 100)
    usernames.announce("a", 300)
    usernames.announce("a", 200)
    usernames.forget(299)
    assert known(usernames) == {"a"}
    usernames.forget(300)
    assert known(usernames) == set()


def test_where_there_are_too_many_those_that_end_first_give_way() -> None:
    usernames = Usernames("turn", 2)
    for username, until in (("late", 300), ("soon", 100), ("between", 200)):
        usernames.announce(username, until)
    assert known(usernames) == {"late", "between"}
    usernames.announce("late", 400)
    assert known(usernames) == {"late", "between"}


def test_username_announced_a_thousand_times_takes_the_room_of_one() -> None:
    usernames = Usernames("turn", 10)
    for until in range(1000):
        usernames.announce("a", until)
    assert known(usernames) == {"a"}
    assert len(usernames._forget) <= 21
    usernames.forget(999)
    assert known(usernames) == set()
