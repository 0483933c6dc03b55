"""The pool of relayed ports."""

from __future__ import annotations

import os

import pytest

from relay.core.addresses import FAMILY_IPV4
from relay.core.ports import PortPool, RelayedPorts, ports_slice


@pytest.mark.parametrize(("low", "high"), [(50000, 50099), (50001, 50100), (50000, 50000)])
def test_every_port_is_handed_out_once(low: int, high: int) -> None:
    pool = PortPool(low, high, os.urandom)
    taken = [pool.take() for _ in range(high - low + 1)]
    assert sorted(port or 0 for port in taken) == list(range(low, high + 1))
    assert pool.take() is None
    assert pool.taken_count == high - low + 1


@pytest.mark.parametrize(("low", "high", "pairs"), [(50000, 50099, 50), (50001, 50100, 49)])
def test_even_pairs_are_even_and_do_not_overlap(low: int, high: int, pairs: int) -> None:
    pool = PortPool(low, high, os.urandom)
    taken = {pool.take_even_pair() for _ in range(pairs)}
    assert len(taken) == pairs
    assert all(port is not None and port % 2 == 0 for port in taken)
    assert pool.take_even_pair() is None


def test_even_port_alone_leaves_the_odd_one_free() -> None:
    pool = PortPool(50000, 50003, os.urandom)
    assert {pool.take_even(), pool.take_even()} == {50000, 50002}
    assert pool.take_even() is None
    assert {pool.take(), pool.take()} == {50001, 50003}


def test_released_port_is_free_again() -> None:
    pool = PortPool(50000, 50000, os.urandom)
    port = pool.take()
    assert port == 50000
    pool.release(port)
    assert pool.take() == 50000


def test_ports_follow_the_random_bytes_alone() -> None:
    draws = iter([b"\0\0\0\x07", b"\0\0\0\x03"])
    pool = PortPool(50000, 50099, lambda count: next(draws)[:count])
    assert (pool.take(), pool.take()) == (50007, 50003)


def test_last_free_port_and_pair_are_found() -> None:
    for low in (50000, 50001):
        pool = PortPool(low, low + 9999, os.urandom)
        while pool.take() is not None:
            pass
        for port in (low + 1, low + 4243, low + 4244, low + 4245, low + 9998):
            pool.release(port)
        pair = pool.take_even_pair()
        assert pair is not None
        assert (pair % 2, pair - low) in ((0, 4244), (0, 4243))
        assert pool.taken_count == 9997
        assert pool.take_even_pair() is None
        assert len({pool.take() for _ in range(3)} - {None}) == 3
        assert pool.take() is None


@pytest.mark.parametrize("ports", [(49152, 65535), (50001, 50100), (50000, 50008), (50001, 50007)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_of_a_range_are_all_of_it_with_every_even_pair_in_one_of_them(
    ports: tuple[int, int], parts: int
) -> None:
    slices = [ports_slice(ports, part, parts) for part in range(parts)]
    assert [port for low, high in slices for port in range(low, high + 1)] == list(
        range(ports[0], ports[1] + 1)
    )
    whole, together = (
        {even for low, high in found for even in range(low + low % 2, high, 2)}
        for found in ([ports], slices)
    )
    assert together == whole
    sizes = [high - low + 1 for low, high in slices]
    assert max(sizes) - min(sizes) <= 4


def test_new_range_keeps_what_is_taken_and_hands_out_none_of_it_twice() -> None:
    pool = PortPool(50000, 50009, os.urandom)
    held = {pool.take() for _ in range(10)}
    pool.range_replace(50005, 50014)
    assert pool.taken_count == 10
    fresh = {pool.take() for _ in range(5)}
    assert fresh == set(range(50010, 50015))
    assert pool.take() is None
    for port in held | fresh:
        pool.release(port or 0)
    assert pool.taken_count == 0
    assert {pool.take() for _ in range(10)} == set(range(50005, 50015))


def test_ports_of_another_range_are_taken_from_nobody() -> None:
    pool = PortPool(50000, 50099, os.urandom)
    held = [pool.take() or 0 for _ in range(60)]
    pool.range_replace(60000, 60049)
    assert (pool.taken_count, pool.free_count) == (60, 50)
    pool.take()
    assert (pool.taken_count, pool.free_count) == (61, 49)
    for port in held:
        pool.release(port)
    assert (pool.taken_count, pool.free_count) == (1, 49)


def test_port_that_was_outside_is_taken_still_once_the_range_is_back() -> None:
    pool = PortPool(50000, 50001, os.urandom)
    held = pool.take()
    pool.range_replace(60000, 60001)
    assert {pool.take(), pool.take()} == {60000, 60001}
    pool.range_replace(50000, 50001)
    assert pool.take() == 100001 - (held or 0)
    assert pool.take() is None
    assert pool.taken_count == 4


def test_ports_of_an_address_that_is_gone_come_back_and_are_forgotten() -> None:
    ports = RelayedPorts({FAMILY_IPV4: "192.0.2.1"}, 50000, 50001, os.urandom)
    old = ports.pool(FAMILY_IPV4).take()
    ports.replace({FAMILY_IPV4: "192.0.2.2"}, 50000, 50001)
    assert {ports.pool(FAMILY_IPV4).take() for _ in range(3)} == {50000, 50001, None}
    assert ports.taken_count == 3
    ports.release(("192.0.2.1", old or 0))
    assert ports.taken_count == 2
    ports.replace({FAMILY_IPV4: "192.0.2.1"}, 50000, 50001)
    assert {ports.pool(FAMILY_IPV4).take() for _ in range(3)} == {50000, 50001, None}
