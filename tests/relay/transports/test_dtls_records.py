"""DTLS record by record: their numbers, their sizes, those that come twice or too early."""

from __future__ import annotations

import time

import pytest
from OpenSSL import SSL

from relay.transports.cookies import HANDSHAKE_HEADER_LENGTH, RECORD_HEADER_LENGTH
from relay.transports.dtls import RECORD_DATA_MAX
from tests.certificates import Files
from tests.relay.fake_link import START
from tests.relay.transports.dtls_rig import FakeClient, Listener, hello_make
from tests.relay.transports.rig import until
from tests.turn_client import Kind

ALERT = 21  # the type of a record
HELLO_VERIFY_REQUEST, SERVER_HELLO = 3, 2
DTLS_1_0 = b"\xfe\xff"
FATAL, HANDSHAKE_FAILURE = 2, 40


def numbered(datagram: bytes, number: int) -> bytes:
    """The same record with another number."""
    return datagram[:5] + number.to_bytes(6, "big") + datagram[11:]


def number_of(datagram: bytes) -> int:
    return int.from_bytes(datagram[5:11], "big")


def hello_with_cookie(client: FakeClient) -> bytes:
    client.flight()
    with pytest.raises(SSL.WantReadError):
        client.dtls.do_handshake()
    return client.dtls.bio_read(65536)


def test_first_answers_have_the_record_numbers_of_their_hellos(certificate: Files) -> None:
    client = FakeClient(listener := Listener(certificate))
    for number in (7, 3, 2**40):  # one after another at the connection that waits
        listener.sessions.receive(numbered(hello_make(), number), ("192.0.2.8", 1), START)
        answer, _ = listener.sent.pop()
        assert answer[RECORD_HEADER_LENGTH] == HELLO_VERIFY_REQUEST
        assert number_of(answer) == number
        assert answer[1:3] == DTLS_1_0
        at = RECORD_HEADER_LENGTH + HANDSHAKE_HEADER_LENGTH
        assert answer[at : at + 2] == DTLS_1_0
    hello = numbered(hello_with_cookie(client), 500)
    listener.sessions.receive(hello, client.address, START)
    client.take()
    records = b"".join(client.answers[1:])
    assert records[RECORD_HEADER_LENGTH] == SERVER_HELLO
    assert number_of(records) == 500
    at = RECORD_HEADER_LENGTH + int.from_bytes(records[11:13], "big")
    assert number_of(records[at:]) == 501


def test_record_that_comes_twice_is_taken_once(certificate: Files) -> None:
    client = FakeClient(listener := Listener(certificate))
    client.handshake()
    client.ask()
    assert client.hear().kind is Kind.SUCCESS
    before = len(client.answers)
    listener.sessions.receive(client.datagrams[-1], client.address, START)
    client.take()
    assert len(client.answers) == before
    client.ask()
    assert client.hear().kind is Kind.SUCCESS


def test_client_whose_first_hello_is_lost_takes_the_next_answers_for_new_ones(
    certificate: Files,
) -> None:
    client = FakeClient(listener := Listener(certificate))
    with pytest.raises(SSL.WantReadError):
        client.dtls.do_handshake()
    client.dtls.bio_read(65536)
    assert until(client.dtls.DTLSv1_handle_timeout)
    client.flush()
    assert number_of(client.answers[0]) == 1
    client.handshake()  # without waiting for its timer, or for ours
    assert [number_of(answer) for answer in client.answers[:2]] == [1, 2]
    client.ask()
    assert client.hear().kind is Kind.SUCCESS
    assert len(listener.sessions) == 1


def test_hello_in_fragments_is_put_together_where_the_first_has_what_the_cookie_covers(
    certificate: Files,
) -> None:
    client = FakeClient(listener := Listener(certificate))
    hello = hello_with_cookie(client)
    length = len(hello) - RECORD_HEADER_LENGTH - HANDSHAKE_HEADER_LENGTH
    for number, part in enumerate((fragment(hello, 0, 50), fragment(hello, 50, length))):
        listener.sessions.receive(numbered(part, number + 1), client.address, START)
    assert listener.sent == []
    assert len(listener.sessions) == 0
    assert listener.turn.dropped["malformed"] == 2
    for number, part in enumerate(
        (fragment(hello, 0, length - 20), fragment(hello, length - 30, length))
    ):
        assert listener.sent == []
        listener.sessions.receive(numbered(part, number + 3), client.address, START)
    assert listener.sent[0][0][RECORD_HEADER_LENGTH] == SERVER_HELLO
    assert number_of(listener.sent[0][0]) == 3
    assert len(listener.sessions) == 1


def fragment(hello: bytes, start: int, end: int) -> bytes:
    """A record with a part of a ClientHello."""
    body = hello[RECORD_HEADER_LENGTH + HANDSHAKE_HEADER_LENGTH :][start:end]
    header = hello[RECORD_HEADER_LENGTH : RECORD_HEADER_LENGTH + 6]
    part = header + start.to_bytes(3, "big") + len(body).to_bytes(3, "big") + body
    return hello[:11] + len(part).to_bytes(2, "big") + part


def test_nothing_is_sent_to_a_client_whose_handshake_is_not_done(certificate: Files) -> None:
    client = FakeClient(listener := Listener(certificate))
    client.flight()
    client.flight()
    assert len(listener.sessions) == 1
    assert listener.sessions.send(bytes(20), client.address) == 0
    assert listener.sent == []
    assert listener.turn.dropped["client unreachable"] == 1
    client.handshake()
    assert listener.sessions.send(bytes(20), client.address) == 20
    client.take()
    assert client.dtls.recv(65536) == bytes(20)


def test_message_longer_than_a_record_is_dropped(certificate: Files) -> None:
    client = FakeClient(listener := Listener(certificate))
    client.handshake()
    client.answers.clear()
    assert listener.sessions.send(bytes(RECORD_DATA_MAX + 1), client.address) == 0
    assert listener.sent == []
    assert listener.sessions.send(bytes(RECORD_DATA_MAX), client.address) == RECORD_DATA_MAX
    client.take()
    assert len(client.answers) == 1
    assert client.dtls.recv(65536) == bytes(RECORD_DATA_MAX)


def client_with_nothing_of_ours(listener: Listener) -> FakeClient:
    """A client whose one suite has no forward secrecy."""
    client = FakeClient(listener)
    context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
    context.set_cipher_list(b"AES128-GCM-SHA256")
    client.dtls = SSL.Connection(context)
    client.dtls.set_connect_state()
    return client


def test_hello_that_offers_nothing_of_ours_is_refused_as_often_as_it_comes(
    certificate: Files,
) -> None:
    client = client_with_nothing_of_ours(listener := Listener(certificate))
    hello = hello_with_cookie(client)
    for _ in range(2):
        listener.sessions.receive(hello, client.address, START)
        ((alert, _),) = listener.sent
        assert alert[0] == ALERT
        assert alert[RECORD_HEADER_LENGTH:] == bytes((FATAL, HANDSHAKE_FAILURE))
        assert len(listener.sessions) == 0
        listener.sent.clear()


def test_hello_that_is_refused_is_no_alert_to_the_session_beside_it(certificate: Files) -> None:
    old = FakeClient(listener := Listener(certificate))
    old.handshake()
    new = client_with_nothing_of_ours(listener)
    hello = hello_with_cookie(new)
    assert new.answers[0][RECORD_HEADER_LENGTH] == HELLO_VERIFY_REQUEST
    listener.sessions.receive(hello, new.address, START)
    assert listener.sent == []
    old.ask()
    assert old.hear().kind is Kind.SUCCESS


def test_flight_that_is_lost_is_sent_again_after_a_second_and_then_after_two(
    certificate: Files,
) -> None:
    client = FakeClient(listener := Listener(certificate))
    hello = hello_with_cookie(client)
    listener.sessions.receive(hello, client.address, START)

    def sent_again() -> bool:
        listener.sweep(START)
        return bool(listener.sent)

    for seconds in (1, 2):
        assert listener.sent[0][0][RECORD_HEADER_LENGTH] == SERVER_HELLO
        listener.sent.clear()
        begun = time.monotonic()
        assert until(sent_again)
        assert time.monotonic() - begun > seconds - 0.1  # the timer ends a little early


def test_close_notify_over_dtls_is_answered_with_one(certificate: Files) -> None:
    client = FakeClient(listener := Listener(certificate))
    client.handshake()
    client.dtls.shutdown()
    client.flush()
    with pytest.raises(SSL.ZeroReturnError):
        client.hear()
    assert len(listener.sessions) == 0
