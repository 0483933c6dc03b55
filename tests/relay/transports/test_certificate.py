"""TLS as the relay speaks it, and certificates that change under live calls."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from relay import runner
from relay.machine import RelayStartError
from relay.runner import Runner
from relay.transports import certificates
from relay.transports.certificates import Certificate, CertificateError, dtls_context
from tests.certificates import RSA, Files, certificate_write
from tests.relay.transports.rig import (
    HOSTS,
    PATIENCE_SECONDS,
    DtlsClient,
    RunningRelay,
    relay_running,
    until,
)
from tests.turn_client import Kind, Method, message_encode


@pytest.fixture
def files(tmp_path: Path, certificate: Files) -> Files:
    """A copy that the test may change."""
    for path in certificate:
        shutil.copy(path, tmp_path)
    chain, key = (tmp_path / path.name for path in certificate)
    return chain, key


@pytest.fixture
def changing(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningRelay]:
    """A relay that looks at its files often."""
    monkeypatch.setattr(runner, "CERTIFICATE_POLL_SECONDS", 0.05)
    with relay_running(tmp_path, files) as running:
        yield running


def files_replace(files: Files, others: Files) -> None:
    """As certbot does: the new file takes the old one's name."""
    for path, other in zip(files, others, strict=True):
        new = path.with_suffix(".new")
        shutil.copy(other, new)
        new.rename(path)


def tls_name(relay: RunningRelay) -> bytes:
    """Whose certificate a new TLS connection is shown."""
    with relay.client("tls") as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        return certificate_name(client.socket.getpeercert(binary_form=True) or b"")


def dtls_name(relay: RunningRelay) -> bytes:
    with relay.client("dtls") as client:
        assert isinstance(client, DtlsClient)
        shown = client.dtls.get_peer_certificate(as_cryptography=True)
        assert shown is not None
        return certificate_name(shown.public_bytes(Encoding.DER))


def refresh(certificate: Certificate) -> bool:
    return asyncio.run(certificate.refresh())


def certificate_name(der: bytes) -> bytes:
    return next(name for name in (b"turn.test", b"new.test") if name in der)


def test_new_certificate_is_used_and_no_call_is_dropped(
    changing: RunningRelay, files: Files, tmp_path: Path
) -> None:
    with changing.client("tls") as tls, changing.client("dtls") as dtls:
        tls.allocate()
        dtls.allocate()
        assert tls_name(changing) == dtls_name(changing) == b"turn.test"
        files_replace(files, certificate_write(tmp_path, "new.test"))
        assert until(lambda: tls_name(changing) == b"new.test")
        assert dtls_name(changing) == b"new.test"
        assert tls.refresh(600) == dtls.refresh(600) == 600


def test_certificate_that_takes_long_to_check_holds_up_no_call(
    changing: RunningRelay, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, may_go_on = threading.Event(), threading.Event()

    def slowly(chain: Path, key: Path) -> SSL.Context:
        checks.set()
        assert may_go_on.wait(2 * PATIENCE_SECONDS)
        return dtls_context(chain, key)

    monkeypatch.setattr(certificates, "dtls_context", slowly)
    with changing.client("tls") as client:
        client.allocate()
        try:
            files_replace(files, certificate_write(tmp_path, "new.test"))
            assert checks.wait(PATIENCE_SECONDS)
            assert client.refresh(600) == 600
            assert tls_name(changing) == b"turn.test"
        finally:
            may_go_on.set()
        assert until(lambda: tls_name(changing) == b"new.test")


def test_certificate_of_a_reload_is_not_undone_by_one_that_took_longer(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, other = Certificate(*files), Certificate(*certificate_write(tmp_path, "new.test"))
    os.utime(files[0], (0, 0))

    def slowly(chain: Path, key: Path) -> SSL.Context:
        certificate.replace(other)
        return dtls_context(chain, key)

    monkeypatch.setattr(certificates, "dtls_context", slowly)
    assert not refresh(certificate)
    assert certificate.tls is other.tls


def test_broken_certificate_keeps_the_old_one_and_says_so_once(
    changing: RunningRelay, files: Files, capfd: pytest.CaptureFixture[str]
) -> None:
    files[0].write_text("-----BEGIN CERTIFICATE-----\nspoilt\n")
    lines: list[str] = []

    def told() -> bool:
        lines.extend(line for line in capfd.readouterr().err.splitlines() if "certificate" in line)
        return bool(lines)

    assert until(told)
    assert tls_name(changing) == dtls_name(changing) == b"turn.test"
    told()
    assert len(lines) == 1
    assert "certificate_kept" in lines[0]
    assert "spoilt" not in lines[0]


def test_key_of_another_certificate_is_not_used(files: Files, tmp_path: Path) -> None:
    certificate = Certificate(*files)
    before = certificate.tls
    assert not refresh(certificate)
    chain, key = certificate_write(tmp_path, "new.test")
    shutil.copy(chain, files[0])
    with pytest.raises(CertificateError):
        refresh(certificate)
    assert certificate.tls is before
    assert not refresh(certificate)
    shutil.copy(key, files[1])
    assert refresh(certificate)
    assert certificate.tls is not before


@pytest.mark.parametrize("spoil", ["missing", "empty", "encrypted", "unreadable"])
def test_unusable_certificate_stops_the_start(
    relay: RunningRelay, files: Files, tmp_path: Path, spoil: str
) -> None:
    chain, key = files
    if spoil == "missing":
        key.unlink()
    elif spoil == "empty":
        chain.write_text("")
    elif spoil == "encrypted":
        command = ["openssl", "pkey", "-aes128", "-passout", "pass:x", "-in", str(key)]
        key.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    else:
        key.unlink()
        key.mkdir()
    config = replace(relay.config, certificate=chain, certificate_key=key)
    with pytest.raises(RelayStartError, match="MINDMORE_TURN_CERTIFICATE"):
        Runner(config)


def test_file_that_is_missing_is_named_and_one_that_holds_no_certificate_is_told_apart(
    files: Files, tmp_path: Path
) -> None:
    chain, key = files
    missing = tmp_path / "missing.pem"
    for names in ((missing, key), (chain, missing)):
        with pytest.raises(CertificateError, match=rf"\(No such file or directory: {missing}\)$"):
            Certificate(*names)
    chain.write_text("")
    with pytest.raises(CertificateError, match=r"\(no certificate that fits the key\)$"):
        Certificate(chain, key)


def test_without_a_certificate_tls_and_dtls_get_nothing(tmp_path: Path) -> None:
    with relay_running(tmp_path, None) as running:
        with pytest.raises(OSError):
            running.client("tls")
        with running.client("udp") as client:
            client.socket.settimeout(0.3)
            client.socket.send(b"\x16\xfe\xfd" + bytes(100))
            with pytest.raises(TimeoutError):
                client.socket.recv(100)
        with running.client("tcp") as client:
            client.allocate()


def s_client(relay: RunningRelay, *options: str) -> str:
    """What `openssl s_client` says of the relay."""
    where = f"{HOSTS[4]}:{relay.config.tls_port}"
    done = subprocess.run(
        ["openssl", "s_client", "-connect", where, *options],
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    return (done.stdout + done.stderr).decode()


@pytest.mark.parametrize(("option", "name"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_tls_1_2_and_newer_are_spoken(relay: RunningRelay, option: str, name: str) -> None:
    assert f"New, {name}" in s_client(relay, option)


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_older_tls_is_refused(relay: RunningRelay, option: str) -> None:
    said = s_client(relay, option, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said
    assert "alert protocol version" in said


both_1_2 = pytest.mark.parametrize("version", ["-tls1_2", "-dtls1_2"])
every_version = pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3", "-dtls1_2"])


@both_1_2
@pytest.mark.parametrize("cipher", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "NULL-SHA256"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(
    relay: RunningRelay, cipher: str, version: str
) -> None:
    said = s_client(relay, version, "-cipher", f"{cipher}:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said


@pytest.fixture(scope="module")
def certificate_rsa(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certificate_write(tmp_path_factory.mktemp("rsa"), "turn.test", RSA)


@both_1_2
def test_elliptic_curves_are_spoken_with_an_rsa_key_and_finite_fields_are_not(
    tmp_path: Path, certificate_rsa: Files, version: str
) -> None:
    with relay_running(tmp_path, certificate_rsa) as running:
        for cipher in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"):
            said = s_client(running, version, "-cipher", cipher)
            assert f"Cipher is {cipher}" in said
        weak = "AES128-SHA", "AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA"
        for cipher in (*weak, "DHE-RSA-AES128-GCM-SHA256"):
            said = s_client(running, version, "-cipher", f"{cipher}:@SECLEVEL=0")
            assert "Cipher is (NONE)" in said


@both_1_2
def test_longer_key_is_chosen_whatever_the_client_prefers(
    relay: RunningRelay, version: str
) -> None:
    longer = "ECDHE-ECDSA-AES256-GCM-SHA384"
    said = s_client(relay, version, "-cipher", f"ECDHE-ECDSA-AES128-GCM-SHA256:{longer}")
    assert f"Cipher is {longer}" in said


@pytest.mark.parametrize("group", ["P-256", "X25519"])
@pytest.mark.parametrize(
    "suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
)
def test_suites_and_groups_that_tls_1_3_asks_for_are_spoken(
    relay: RunningRelay, suite: str, group: str
) -> None:
    said = s_client(relay, "-tls1_3", "-ciphersuites", suite, "-groups", group)
    assert f"Cipher is {suite}" in said
    assert "Peer signature type: ECDSA" in said


def test_rsa_key_signs_as_tls_1_3_asks_for(tmp_path: Path, certificate_rsa: Files) -> None:
    with relay_running(tmp_path, certificate_rsa) as running:
        said = s_client(running, "-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256")
        assert "Peer signature type: RSA-PSS" in said


def test_rsa_key_of_less_than_2048_bits_is_not_used(tmp_path: Path) -> None:
    Certificate(*certificate_write(tmp_path, "good.test", RSA))
    with pytest.raises(CertificateError):
        Certificate(*certificate_write(tmp_path, "weak.test", ("rsa:1024",)))


def tls_client(relay: RunningRelay, version: ssl.TLSVersion, certificate: Files) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=os.fspath(certificate[0]))
    context.minimum_version = context.maximum_version = version
    return context.wrap_socket(relay.connect(), server_hostname=HOSTS[4])


both_versions = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)


@both_versions
def test_no_tickets_are_given(
    relay: RunningRelay, certificate: Files, version: ssl.TLSVersion
) -> None:
    with tls_client(relay, version, certificate) as client:
        client.send(message_encode(Method.BINDING, Kind.REQUEST))
        assert client.recv(1)  # tickets come before it
        assert client.session is not None
        assert not client.session.has_ticket


@both_versions
def test_close_notify_over_tls_is_answered_with_one(
    relay: RunningRelay, certificate: Files, version: ssl.TLSVersion
) -> None:
    with tls_client(relay, version, certificate) as client:
        client.unwrap().close()  # it waits for the relay's, and would raise SSLEOFError
    assert until(lambda: relay.connections() == 0)


def test_neither_compresses_nor_renegotiates_nor_gives_tickets(certificate: Files) -> None:
    both = Certificate(*certificate)
    nothing = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    assert both.tls.options & nothing == nothing
    assert both.tls.num_tickets == 0
    assert both.dtls.set_options(0) & nothing == nothing


@every_version
@pytest.mark.parametrize("protocol", ["stun.turn", "stun.nat-discovery"])
def test_alpn_of_rfc_7443_is_agreed_on(relay: RunningRelay, protocol: str, version: str) -> None:
    assert f"ALPN protocol: {protocol}" in s_client(relay, version, "-alpn", f"h2,{protocol}")


@every_version
@pytest.mark.parametrize("offered", [(), ("-alpn", "h2")], ids=["no alpn", "another"])
def test_client_without_our_alpn_is_served(
    relay: RunningRelay, offered: tuple[str, ...], version: str
) -> None:
    said = s_client(relay, version, *offered)
    assert "No ALPN negotiated" in said
    assert "Cipher is (NONE)" not in said
    assert "Cipher is " in said


def test_renegotiation_is_refused(relay: RunningRelay) -> None:
    said = s_client(relay, "-tls1_2")
    assert "Secure Renegotiation IS supported" in said
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    with socket.create_connection((HOSTS[4], relay.config.listen_port), PATIENCE_SECONDS) as plain:
        connection = SSL.Connection(context, plain)
        plain.settimeout(None)
        connection.set_connect_state()
        connection.do_handshake()
        assert connection.renegotiate()
        with pytest.raises(SSL.Error):
            connection.do_handshake()


def test_tls_is_ended_with_close_notify(relay: RunningRelay) -> None:
    with relay.client("tls") as client:
        client.allocate()
        relay.stop()
        assert client.socket.recv(100) == b""  # and no SSLEOFError


def test_dtls_below_1_2_is_refused(relay: RunningRelay) -> None:
    said = s_client(relay, "-dtls1", "-cipher", "ALL:@SECLEVEL=0", "-timeout")
    assert "Cipher is (NONE)" in said


def test_tls_client_may_check_the_name(relay: RunningRelay, certificate: Files) -> None:
    context = ssl.create_default_context(cafile=os.fspath(certificate[0]))
    server = HOSTS[4], relay.config.listen_port
    with (
        socket.create_connection(server, PATIENCE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=HOSTS[4]) as tls,
    ):
        assert tls.version() == "TLSv1.3"
