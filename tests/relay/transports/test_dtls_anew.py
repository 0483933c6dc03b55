"""DTLS clients that begin anew, hellos that come once more, and how long a cookie is good."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from relay.config import ClientLimits
from relay.core.errors import MalformedMessageError
from relay.transports.cookies import COOKIE_PERIOD_SECONDS, HELLO_AT, RANDOM, hello_parameters
from relay.transports.dtls import SUCCESSOR_KEPT_SECONDS, SUCCESSORS_MAX
from tests.certificates import Files
from tests.relay.fake_link import START
from tests.relay.transports.dtls_rig import FakeClient, Listener, RememberingClient, hello_make
from tests.relay.transports.rig import HOSTS, DtlsClient, RunningRelay, dtls_connection, until
from tests.turn_client import Kind

HELLO_VERIFY_REQUEST = 3
SERVER_HELLO = 2
CHANGE_CIPHER_SPEC = 20  # the type of a record
FIRST_MESSAGE_SECONDS = ClientLimits().first_message_seconds


def hello_with_cookie(client: FakeClient, now: float = START) -> bytes:
    """The ClientHello with the cookie that the listener has given; not sent yet."""
    client.flight(now)
    with pytest.raises(SSL.WantReadError):
        client.dtls.do_handshake()
    return client.dtls.bio_read(65536)


def handshake_repeat(client: DtlsClient) -> None:
    """Shake hands, and send again what is not answered within a second."""
    client.socket.settimeout(SUCCESSOR_KEPT_SECONDS + 0.1)
    while True:
        try:
            client.dtls.do_handshake()
        except SSL.WantReadError:
            client.flush()
        else:
            client.flush()
            return
        try:
            client.dtls.bio_write(client.socket.recv(65536))
        except TimeoutError:
            client.dtls.DTLSv1_handle_timeout()


def answer_kind(client: FakeClient, datagram: bytes, now: float = START) -> int:
    """The kind of handshake message that a datagram is answered with."""
    client.listener.sessions.receive(datagram, client.address, now)
    client.take()
    return client.answers[-1][13]


@pytest.mark.parametrize(
    "begun", [0.0, 0.1, COOKIE_PERIOD_SECONDS / 2, COOKIE_PERIOD_SECONDS - 0.1]
)
@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (0.0, SERVER_HELLO),
        (COOKIE_PERIOD_SECONDS, SERVER_HELLO),
        (2 * COOKIE_PERIOD_SECONDS, HELLO_VERIFY_REQUEST),
        (-2 * COOKIE_PERIOD_SECONDS, HELLO_VERIFY_REQUEST),
    ],
)
def test_cookie_is_good_for_a_period_and_for_no_more_than_two(
    certificate: Files, begun: float, after: float, kind: int
) -> None:
    now = 1000 * COOKIE_PERIOD_SECONDS + begun
    client = FakeClient(Listener(certificate))
    hello = hello_with_cookie(client, now)
    assert answer_kind(client, hello, now + after) == kind
    assert len(client.listener.sessions) == (kind == SERVER_HELLO)
    if kind == HELLO_VERIFY_REQUEST:  # with a cookie that is good
        fresh = client.answers[-1][HELLO_AT + 3 :]
        cookie_at = RANDOM.stop + 2
        renewed = hello[:cookie_at] + fresh + hello[cookie_at + len(fresh) :]
        assert answer_kind(client, renewed, now + after) == SERVER_HELLO
        assert len(client.listener.sessions) == 1


@pytest.mark.parametrize(
    "part", ["version", "random", "session id", "cipher suites", "compression methods"]
)
def test_cookie_is_good_for_the_hello_alone_that_it_was_given_for(
    certificate: Files, part: str
) -> None:
    client = FakeClient(Listener(certificate))
    hello = hello_with_cookie(client)
    assert answer_kind(client, hello_changed(hello, part)) == HELLO_VERIFY_REQUEST
    assert len(client.listener.sessions) == 0
    assert answer_kind(client, hello) == SERVER_HELLO


def hello_changed(hello: bytes, part: str) -> bytes:
    """The same hello, and the same cookie, but for one part."""
    assert hello[RANDOM.stop] == 0  # no session id
    if part == "session id":
        longer = hello[: RANDOM.stop] + b"\1s" + hello[RANDOM.stop + 1 :]
        for at, width in ((11, 2), (14, 3), (22, 3)):  # the lengths of record, message, fragment
            length = int.from_bytes(longer[at : at + width], "big") + 1
            longer = longer[:at] + length.to_bytes(width, "big") + longer[at + width :]
        return longer
    suites_at = RANDOM.stop + 2 + hello[RANDOM.stop + 1] + 2
    suites_end = suites_at + int.from_bytes(hello[suites_at - 2 : suites_at], "big")
    at = {
        "version": HELLO_AT + 1,
        "random": RANDOM.start,
        "cipher suites": suites_at + 1,
        "compression methods": suites_end + 1,
    }[part]
    return hello[:at] + bytes((hello[at] ^ 1,)) + hello[at + 1 :]


def test_hello_that_is_cut_short_is_malformed_or_says_all_that_counts() -> None:
    hello = hello_make()
    whole = hello_parameters(hello)
    cut = 0
    for length in range(len(hello)):
        try:
            assert hello_parameters(hello[:length]) == whole  # only extensions are missing
        except MalformedMessageError:
            assert length == cut
            cut += 1
    assert RANDOM.stop < cut < len(hello)


def test_older_handshake_of_a_client_ends_no_newer_session(relay: RunningRelay) -> None:
    client = RememberingClient((HOSTS[4], relay.config.listen_port), *relay.credential())
    with client:
        older = list(client.datagrams)
        assert [datagram[13] for datagram in older[:2]] == [1, 1]  # without and with a cookie
        client.allocate()
        client.dtls = dtls_connection()
        client.handshake()
        assert relay.allocations() == 0
        client.allocate()
        for datagram in (*older, *reversed(older), older[1]):
            client.socket.send(datagram)
            assert client.refresh(600) == 600
        assert relay.sessions() == relay.allocations() == 1
        # One of these handshakes is under way for ever: the client may begin anew all the same.
        client.dtls = dtls_connection()
        handshake_repeat(client)
        assert relay.allocations() == 0
        client.allocate()
        assert relay.sessions() == 1


def test_session_lives_until_the_handshake_of_its_successor_is_done(certificate: Files) -> None:
    old = FakeClient(listener := Listener(certificate))
    old.handshake()
    new = FakeClient(listener)
    assert answer_kind(new, hello_with_cookie(new)) == SERVER_HELLO
    old.ask()
    assert old.hear().kind is Kind.SUCCESS
    new.handshake()
    new.ask()
    assert new.hear().kind is Kind.SUCCESS
    answers = len(old.answers)
    old.ask()
    assert len(old.answers) == answers
    assert len(listener.sessions) == 1


def test_close_notify_of_a_session_is_heard_while_its_successor_begins(certificate: Files) -> None:
    old = FakeClient(listener := Listener(certificate))
    old.handshake()
    new = FakeClient(listener)
    new.flight()
    new.flight()
    old.dtls.shutdown()
    old.flush()
    with pytest.raises(SSL.ZeroReturnError):
        old.hear()
    new.handshake()
    new.ask()
    assert new.hear().kind is Kind.SUCCESS
    assert len(listener.sessions) == 1


def test_successor_goes_on_where_its_session_ends_before_it(certificate: Files) -> None:
    old = FakeClient(listener := Listener(certificate))
    old.handshake()
    new = FakeClient(listener)
    assert answer_kind(new, hello_with_cookie(new), START + 1) == SERVER_HELLO
    listener.sweep(START + FIRST_MESSAGE_SECONDS)  # the old one has said nothing
    old.take()
    with pytest.raises(SSL.ZeroReturnError):
        old.hear()
    assert len(listener.sessions) == 1
    new.handshake(START + FIRST_MESSAGE_SECONDS)
    new.ask(START + FIRST_MESSAGE_SECONDS)
    assert new.hear().kind is Kind.SUCCESS


def test_last_flight_is_sent_again_while_the_session_lives(certificate: Files) -> None:
    client = FakeClient(listener := Listener(certificate))
    client.flight()
    client.flight()
    with pytest.raises(SSL.WantReadError):
        client.dtls.do_handshake()
    listener.sessions.receive(client.dtls.bio_read(65536), client.address, START)
    ((lost, _),) = listener.sent
    assert lost[0] == CHANGE_CIPHER_SPEC
    listener.sent.clear()
    assert until(client.dtls.DTLSv1_handle_timeout)  # it sends its own once more
    late = START + FIRST_MESSAGE_SECONDS - 0.1
    listener.sweep(late)
    client.flush(late)
    assert client.answers[-1][0] == CHANGE_CIPHER_SPEC
    client.dtls.do_handshake()
    listener.sweep(START + FIRST_MESSAGE_SECONDS)
    assert len(listener.sessions) == 0


def test_successor_that_does_not_end_its_handshake_is_forgotten(certificate: Files) -> None:
    old = FakeClient(listener := Listener(certificate))
    old.handshake()
    new = FakeClient(listener)
    assert answer_kind(new, hello_with_cookie(new)) == SERVER_HELLO
    old.ask(START + FIRST_MESSAGE_SECONDS / 2)
    assert old.hear().kind is Kind.SUCCESS
    assert len(listener.sessions._successors) == 1
    listener.sweep(START + FIRST_MESSAGE_SECONDS)
    assert len(listener.sessions._successors) == 0
    old.ask(START + FIRST_MESSAGE_SECONDS)
    assert len(listener.sessions) == 1


def test_older_hello_does_not_end_the_handshake_of_a_successor(certificate: Files) -> None:
    listener = Listener(certificate)
    older = FakeClient(listener)
    repeated = hello_with_cookie(older)
    FakeClient(listener).handshake()
    new = FakeClient(listener)
    assert answer_kind(new, hello_with_cookie(new)) == SERVER_HELLO
    soon = START + SUCCESSOR_KEPT_SECONDS - 0.1
    listener.sessions.receive(repeated, older.address, soon)
    assert listener.sent == []
    new.handshake(soon)
    new.ask(soon)
    assert new.hear().kind is Kind.SUCCESS


def test_hello_that_came_too_early_begins_anew_when_it_is_repeated(certificate: Files) -> None:
    listener = Listener(certificate)
    older = FakeClient(listener)
    repeated = hello_with_cookie(older)
    FakeClient(listener).handshake()
    assert answer_kind(older, repeated) == SERVER_HELLO  # somebody sends it, and no more
    new = FakeClient(listener)
    hello = hello_with_cookie(new)
    listener.sessions.receive(hello, new.address, START)
    assert listener.sent == []
    (other,) = listener.sessions._successors.values()
    assert until(lambda: other.connection.DTLSv1_get_timeout() == 0)
    listener.sweep(START + SUCCESSOR_KEPT_SECONDS)
    assert listener.sent == []  # what is for the other hello would end this handshake
    late = START + SUCCESSOR_KEPT_SECONDS
    assert answer_kind(new, hello, late) == SERVER_HELLO
    new.handshake(late)
    new.ask(late)
    assert new.hear().kind is Kind.SUCCESS


def test_successor_that_is_late_is_sent_nothing_more(certificate: Files) -> None:
    old = FakeClient(listener := Listener(certificate))
    old.handshake()
    old.ask()
    new = FakeClient(listener)
    assert answer_kind(new, hello_with_cookie(new)) == SERVER_HELLO
    (successor,) = listener.sessions._successors.values()
    assert until(lambda: successor.connection.DTLSv1_get_timeout() == 0)
    listener.sweep(START + FIRST_MESSAGE_SECONDS)
    assert listener.sent == []


def test_session_that_is_late_is_sent_nothing_more(certificate: Files) -> None:
    client = FakeClient(listener := Listener(certificate))
    assert answer_kind(client, hello_with_cookie(client)) == SERVER_HELLO
    (session,) = listener.sessions._sessions.values()
    assert until(lambda: session.connection.DTLSv1_get_timeout() == 0)
    listener.sweep(START + FIRST_MESSAGE_SECONDS)
    assert listener.sent == []
    assert len(listener.sessions) == 0


def test_successors_are_bounded_and_the_oldest_makes_room(certificate: Files) -> None:
    listener = Listener(certificate, answers_per_second=0)
    for number in range(SUCCESSORS_MAX + 2):
        address = "192.0.2.7", 40000 + number
        FakeClient(listener, address).handshake()
        new = FakeClient(listener, address)
        assert answer_kind(new, hello_with_cookie(new)) == SERVER_HELLO
    ports = [port for _, port in listener.sessions._successors]
    assert ports == list(range(40002, 40002 + SUCCESSORS_MAX))
    assert len(listener.sessions) == SUCCESSORS_MAX + 2
