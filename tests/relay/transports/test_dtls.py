"""DTLS: no state before the cookie, lost and repeated packets, sizes."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest
from OpenSSL import SSL

from relay.config import ClientLimits
from relay.core.addresses import FiveTuple
from relay.transports.dtls import HANDSHAKE_DATAGRAM_MAX, datagrams_split
from tests.certificates import Files
from tests.relay.fake_link import START
from tests.relay.transports.dtls_rig import FakeClient, Listener, RememberingClient, hello_make
from tests.relay.transports.rig import (
    HOSTS,
    PATIENCE_SECONDS,
    DtlsClient,
    RunningRelay,
    dtls_connection,
    relay_running,
    until,
)
from tests.turn_client import (
    HEADER,
    Attribute,
    Kind,
    Method,
    TurnError,
    allocate_attributes,
    message_encode,
)

PAGE_KILOBYTES = resource.getpagesize() // 1024


def endpoint(relay: RunningRelay, seconds: float = PATIENCE_SECONDS) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.settimeout(seconds)
    opened.connect((HOSTS[4], relay.config.listen_port))
    return opened


def rss_kilobytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KILOBYTES


def test_hello_gets_a_cookie_and_leaves_nothing(relay: RunningRelay) -> None:
    hello = hello_make()
    with endpoint(relay) as client:
        client.send(hello)
        answer = client.recv(65536)
        assert answer[13] == 3  # HelloVerifyRequest
        assert len(answer) < len(hello) / 2  # of no use to whoever spoofs
        assert relay.sessions() == 0


def test_flood_of_hellos_leaves_nothing(relay: RunningRelay) -> None:
    hello = hello_make()
    with endpoint(relay) as client:
        for _ in range(1000):  # warm
            client.send(hello)
            client.recv(65536)
        before = rss_kilobytes()
        for number in range(20_000):
            client.send(hello[:-8] + os.urandom(8))
            if number % 2:
                client.recv(65536)
        assert relay.sessions() == 0
        assert rss_kilobytes() - before < 2_000


def test_cookies_to_a_network_are_ten_a_second_and_of_no_use_to_reflect(
    certificate: Files,
) -> None:
    listener, hello = Listener(certificate), hello_make()
    for number in range(100):
        listener.sessions.receive(hello, (f"192.0.2.{number}", 40000), START)
    assert len(listener.sent) == 10
    assert {answer[13] for answer, _ in listener.sent} == {3}  # HelloVerifyRequest
    assert all(len(answer) < len(hello) / 2 for answer, _ in listener.sent)
    assert listener.turn.dropped["unauthenticated answers"] == 90
    assert len(listener.silences) == 1
    listener.sessions.receive(hello, ("198.51.100.1", 40000), START)
    listener.sessions.receive(hello, ("192.0.2.1", 40000), START + 1.5)
    assert len(listener.sent) == 12
    assert len(listener.sessions) == 0


def test_cookies_and_answers_over_udp_share_one_limit(certificate: Files) -> None:
    listener, client = Listener(certificate), ("192.0.2.7", 40000)
    binding = message_encode(Method.BINDING, Kind.REQUEST)
    five_tuple = FiveTuple("udp", client, ("127.0.0.1", 3478))
    for _ in range(7):
        assert listener.turn.receive_from_client(binding, five_tuple, START)
    for _ in range(7):
        listener.sessions.receive(hello_make(), client, START)
    assert len(listener.sent) == 3


def test_who_has_a_cookie_is_served_while_his_network_is_silenced(certificate: Files) -> None:
    listener, client, connection = Listener(certificate), ("192.0.2.7", 40000), dtls_connection()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    listener.sessions.receive(connection.bio_read(65536), client, START)
    connection.bio_write(listener.sent.pop()[0])
    for number in range(50):
        listener.sessions.receive(hello_make(), (f"192.0.2.{number + 100}", 1), START)
    assert len(listener.sent) == 9
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    listener.sessions.receive(connection.bio_read(65536), client, START)
    assert listener.sent[-1][0][13] == 2  # ServerHello
    assert len(listener.sessions) == 1


@pytest.mark.parametrize("length", [1, 13, 14, 60, 200])
def test_cut_or_broken_hellos_get_nothing_that_lasts(relay: RunningRelay, length: int) -> None:
    hello = hello_make()
    with endpoint(relay, 0.2) as client:
        for datagram in (hello[:length], hello[:14] + os.urandom(length), b"\x17" + hello[1:]):
            client.send(datagram)
        with relay.client("dtls") as good:
            good.allocate()
        assert relay.sessions() == 1


def test_cookie_of_another_address_is_refused(relay: RunningRelay) -> None:
    connection = dtls_connection()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    with endpoint(relay) as one, endpoint(relay) as other:
        one.send(connection.bio_read(65536))
        connection.bio_write(one.recv(65536))
        with pytest.raises(SSL.WantReadError):
            connection.do_handshake()
        with_cookie = connection.bio_read(65536)
        other.send(with_cookie)
        assert other.recv(65536)[13] == 3  # a cookie of its own, and no session
        assert relay.sessions() == 0
        one.send(with_cookie)
        assert one.recv(65536)[13] == 2  # ServerHello
        assert relay.sessions() == 1


def test_handshake_ends_although_every_datagram_is_lost_once(
    tmp_path: Path, certificate: Files
) -> None:
    # Both ends wait a second before they send again, then two, then four.
    limits = ClientLimits(first_message_seconds=120, idle_seconds=120)
    with (
        relay_running(tmp_path, certificate, limits=limits) as running,
        endpoint(running, 0.2) as client,
    ):
        for _ in range(2):  # the second one begins anew from the same port
            handshake_with_losses(client)
            assert running.sessions() == 1


def handshake_with_losses(client: socket.socket) -> None:
    connection, lost = dtls_connection(), set[str]()
    for _ in range(500):
        try:
            connection.do_handshake()
            break
        except SSL.WantReadError:
            pass
        try:
            flight = connection.bio_read(65536)
            if f"to {flight[13]}" in lost:
                client.send(flight)
            lost.add(f"to {flight[13]}")
        except SSL.WantReadError:
            pass
        try:
            answer = client.recv(65536)
            if f"from {answer[13]}" in lost:
                connection.bio_write(answer)
            lost.add(f"from {answer[13]}")
        except TimeoutError:
            connection.DTLSv1_handle_timeout()
    else:
        pytest.fail("no handshake")
    assert len(lost) >= 4


def test_handshake_that_does_not_end_is_forgotten(tmp_path: Path, certificate: Files) -> None:
    limits = ClientLimits(first_message_seconds=3)
    with relay_running(tmp_path, certificate, limits=limits) as running:
        connection = dtls_connection()
        with endpoint(running) as client:
            for _ in range(2):
                with pytest.raises(SSL.WantReadError):
                    connection.do_handshake()
                client.send(connection.bio_read(65536))
                connection.bio_write(client.recv(65536))
            assert running.sessions() == 1
            assert until(lambda: running.sessions() == 0)


def test_sessions_are_bounded_and_the_oldest_stranger_makes_room(
    tmp_path: Path, certificate: Files
) -> None:
    limits = ClientLimits(dtls_sessions_max=3)
    with relay_running(tmp_path, certificate, limits=limits) as running:
        clients = [running.client("dtls") for _ in range(3)]
        clients[0].allocate()
        clients.append(running.client("dtls"))
        assert running.sessions() == 3
        assert clients[0].refresh(600) == 600
        for client in (clients[2], clients[3]):
            client.allocate()
        with pytest.raises(TimeoutError):
            late = running.client("udp")
            late.socket.settimeout(1)
            DtlsClient.handshake(_as_dtls(late))
        assert running.allocations() == 3
        for client in [*clients, late]:
            client.socket.close()


def _as_dtls(client: object) -> DtlsClient:
    """A client whose handshake has still to come."""
    made = DtlsClient.__new__(DtlsClient)
    made.__dict__.update(vars(client), dtls=dtls_connection())
    return made


def test_client_that_begins_anew_from_its_port_gets_a_new_session(relay: RunningRelay) -> None:
    with relay.client("dtls") as client:
        assert isinstance(client, DtlsClient)
        client.allocate()
        # Somebody else's hello from that address, as it would be spoofed, ends nothing.
        client.socket.send(hello_make())
        client.socket.recv(65536)
        assert client.refresh(600) == 600
        client.dtls = dtls_connection()
        client.handshake()
        assert relay.allocations() == 0
        client.allocate()
        assert relay.sessions() == 1


def test_handshake_that_arrives_once_more_ends_nothing(relay: RunningRelay) -> None:
    server = HOSTS[4], relay.config.listen_port
    client = RememberingClient(server, *relay.credential())
    with client:
        handshake = list(client.datagrams)
        assert [datagram[13] for datagram in handshake[:2]] == [1, 1]  # without and with a cookie
        client.allocate()
        for datagram in (*handshake, *reversed(handshake)):
            client.socket.send(datagram)
            assert client.refresh(600) == 600
        assert relay.sessions() == relay.allocations() == 1


def test_close_notify_ends_session_and_allocation(relay: RunningRelay) -> None:
    with relay.client("dtls") as client:
        assert isinstance(client, DtlsClient)
        client.allocate()
        client.dtls.shutdown()
        client.flush()
        assert until(lambda: relay.sessions() == relay.allocations() == 0)


def forged_records() -> list[bytes]:
    """Records as somebody makes them who knows the address and no key: whole, cut, of any epoch."""
    bodies = [os.urandom(40), b"\2\x28", b"\1\0", b"\1", b"\x14\0\0\x0c" + bytes(20), b""]
    records = [
        bytes((kind,)) + version + epoch + os.urandom(6) + len(body).to_bytes(2, "big") + body
        for kind in (20, 21, 22, 23, 24, 63)
        for version in (b"\xfe\xfd", b"\xfe\xff", b"\3\3")
        for epoch in (b"\0\0", b"\0\1", b"\0\2", b"\xff\xff")
        for body in bodies
    ]
    return records + [record[:-1] for record in records]


def test_forged_records_do_not_end_a_session(relay: RunningRelay) -> None:
    with relay.client("dtls") as client:
        client.allocate()
        for number, record in enumerate(forged_records()):
            client.socket.send(record)
            if number % 50 == 0:
                assert client.refresh(600) == 600
        assert client.refresh(600) == 600
        assert relay.sessions() == relay.allocations() == 1


def test_handshake_datagrams_fit_the_smallest_mtu() -> None:
    record = b"\x16\xfe\xfd" + bytes(8) + (500).to_bytes(2, "big") + bytes(500)
    parts = list(datagrams_split(record * 5))
    assert b"".join(parts) == record * 5
    assert [len(part) for part in parts] == [2 * len(record), 2 * len(record), len(record)]
    assert all(len(part) <= HANDSHAKE_DATAGRAM_MAX for part in parts)


def test_handshake_of_a_long_chain_comes_in_whole_records_that_fit(
    tmp_path: Path, certificate: Files
) -> None:
    chain, key = tmp_path / "chain.pem", certificate[1]
    chain.write_text(certificate[0].read_text() * 8)
    client = FakeClient(Listener((chain, key)))
    client.handshake()
    assert sum(map(len, client.answers)) > 2 * HANDSHAKE_DATAGRAM_MAX
    for datagram in client.answers:
        assert len(datagram) <= HANDSHAKE_DATAGRAM_MAX
        while datagram:
            length = 13 + int.from_bytes(datagram[11:13], "big")
            assert length <= len(datagram)
            datagram = datagram[length:]


def test_session_lives_until_it_is_idle_and_is_ended_with_close_notify(certificate: Files) -> None:
    client = FakeClient(listener := Listener(certificate))
    client.handshake()
    client.ask()
    assert client.hear().kind is Kind.SUCCESS
    idle_at = START + ClientLimits().idle_seconds
    listener.sweep(idle_at - 0.1)
    assert len(listener.sessions) == 1
    listener.sweep(idle_at)
    client.take()
    with pytest.raises(SSL.ZeroReturnError):
        client.hear()
    assert len(listener.sessions) == 0


def test_message_for_a_client_without_a_session_is_dropped(certificate: Files) -> None:
    listener = Listener(certificate)
    assert listener.sessions.send(bytes(20), ("192.0.2.7", 40000)) == 0
    assert listener.sent == []
    assert listener.turn.dropped["client unreachable"] == 1


def test_request_without_the_magic_cookie_is_a_server_error_and_an_indication_nothing(
    relay: RunningRelay,
) -> None:
    transaction = bytes(range(16))
    request = HEADER.pack(Method.BINDING, 0, transaction[:4], transaction[4:])
    with relay.client("dtls") as client:
        client.transmit(request)
        refusal = b"\x01\x11\0\x08" + transaction + b"\0\x09\0\4\0\0\5\0"
        assert client.datagram_receive() == refusal
        client.transmit(b"\0\x11" + request[2:])
        client.binding()
        assert len(client.received) == 2
        assert relay.dropped("malformed") == 2


def test_tcp_allocation_cannot_be_had_over_dtls(relay: RunningRelay) -> None:
    wish = [(Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")]
    with relay.client("tls") as client:
        client.request(Method.ALLOCATE, wish)
    with relay.client("dtls") as client, pytest.raises(TurnError) as refused:
        client.request(Method.ALLOCATE, wish)
    assert refused.value.code == 400


def test_answers_leave_room_for_the_record_on_every_path(relay: RunningRelay) -> None:
    with relay.client("dtls") as client:
        client.exchange(Method.BINDING)
        client.allocate()
        client.permit((HOSTS[4], 9999))
        client.bind(0x4000, (HOSTS[4], 9999))
        assert client.exchange(Method.ALLOCATE, [(0x7FFF, b"")]).error_code
        with pytest.raises(TurnError):
            client.request(Method.ALLOCATE, allocate_attributes())
        client.refresh(0)
        # 548 bytes, without the record's header, its explicit nonce and its tag.
        assert max(client.received) < 548 - 13 - 8 - 16
        assert len(client.received) >= 8
