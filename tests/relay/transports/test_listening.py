"""A relay that listens everywhere answers from where it was asked."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relay.config import ClientLimits
from relay.transports import listening
from relay.transports.listening import (
    Endpoints,
    ListenError,
    addresses_named,
    endpoints_bind,
    endpoints_bind_alone,
    endpoints_close,
)
from tests.ports import free_port
from tests.relay.transports.rig import (
    DatagramClient,
    DtlsClient,
    RunningRelay,
    config_running,
    relay_config,
)

OWN = {"127.0.0.1", "127.0.0.2", "::1", "fe80::1"}
NOT_READY = "192.0.2.9"  # as an IPv6 address that is `tentative`: listed, and bind fails
BINDS: list[Callable[[list[tuple[str, int]]], list[Endpoints]]] = [
    lambda addresses: endpoints_bind(addresses, 2),
    lambda addresses: [endpoints_bind_alone(addresses)],
]


@pytest.fixture
def _own_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "host_addresses", lambda: OWN)


@pytest.fixture
def everywhere(
    tmp_path: Path, certificate: tuple[Path, Path], _own_addresses: None
) -> Iterator[RunningRelay]:
    config = relay_config(tmp_path, certificate, ClientLimits(), ())
    with config_running(replace(config, listen_addresses=("0.0.0.0", "::"))) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_answer_comes_from_where_the_request_was_sent_to(
    everywhere: RunningRelay, host: str
) -> None:
    server = host, everywhere.config.listen_port
    with DatagramClient(server, *everywhere.credential()) as client:  # deaf to other addresses
        assert client.binding() == client.socket.getsockname()
    with DtlsClient(server, *everywhere.credential()) as client:
        client.allocate()


@pytest.mark.usefixtures("_own_addresses")
def test_every_address_of_the_host_stands_for_a_wildcard_once() -> None:
    named = addresses_named([("0.0.0.0", 1), ("127.0.0.2", 1), ("::", 2), ("192.0.2.1", 3)])
    assert sorted(named) == [("127.0.0.1", 1), ("127.0.0.2", 1), ("192.0.2.1", 3), ("::1", 2)]


def test_wildcard_stays_where_the_system_tells_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "host_addresses", set)
    assert addresses_named([("0.0.0.0", 1), ("::", 1)]) == [("0.0.0.0", 1), ("::", 1)]


@pytest.mark.usefixtures("_own_addresses")
def test_several_processes_have_a_socket_each_at_every_address() -> None:
    port = free_port()
    bound = endpoints_bind([("0.0.0.0", port)], 2)
    try:
        assert [sorted(endpoints) for endpoints in bound] == [
            [("127.0.0.1", port), ("127.0.0.2", port)]
        ] * 2
    finally:
        endpoints_close(bound)


@pytest.mark.parametrize("bind", BINDS)
def test_address_of_a_wildcard_that_is_not_ready_is_left_out_and_logged(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bind: Callable[[list[tuple[str, int]]], list[Endpoints]],
) -> None:
    monkeypatch.setattr(listening, "host_addresses", lambda: {"127.0.0.1", NOT_READY})
    port = free_port()
    bound = bind([("0.0.0.0", port)])
    endpoints_close(bound)
    assert all(list(endpoints) == [("127.0.0.1", port)] for endpoints in bound)
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["level"], line["family"]) == ("address_left_out", "warning", 4)
    assert NOT_READY not in line.values()


@pytest.mark.parametrize("bind", BINDS)
@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({NOT_READY}, []),
        ({"127.0.0.1", NOT_READY}, [NOT_READY]),
        ({"127.0.0.1"}, [NOT_READY]),
    ],
)
def test_address_that_is_named_or_the_only_one_must_be_ready(
    monkeypatch: pytest.MonkeyPatch,
    bind: Callable[[list[tuple[str, int]]], list[Endpoints]],
    own: set[str],
    named: list[str],
) -> None:
    monkeypatch.setattr(listening, "host_addresses", lambda: own)
    port = free_port()
    with pytest.raises(ListenError, match=f"{NOT_READY} .*{os.strerror(errno.EADDRNOTAVAIL)}"):
        bind([("0.0.0.0", port), *((host, port) for host in named)])
    endpoints_close([endpoints_bind_alone([("127.0.0.1", port)])])  # nothing has stayed bound


def test_relay_says_how_many_addresses_it_listens_at_and_how_many_of_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(listening, "host_addresses", lambda: {*OWN, NOT_READY})
    config = relay_config(tmp_path, None, ClientLimits(), ())
    with config_running(replace(config, listen_addresses=("0.0.0.0", "::"))):
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (started,) = (line for line in lines if line["event"] == "relay_started")
    assert (started["addresses"], started["loopback_addresses"]) == (3, 3)
