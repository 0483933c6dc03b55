"""The certificate for TLS and DTLS, read again when its files change.

Connections keep the context that they began with, so a new certificate drops none of them. TLS is
the standard library's; DTLS needs what it does not have, and is pyOpenSSL's.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from relay.transports.cookies import Cookies

# RFC 7443: TURN, and STUN for those who only ask for their address.
ALPN_PROTOCOLS = ["stun.turn", "stun.nat-discovery"]
# Forward secrecy and authenticated encryption; TLS 1.3 has nothing else. Without DHE: ADR 8.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
DTLS_1_2 = 0xFEFD

_Signature = tuple[tuple[int, int, int], ...]


class CertificateError(Exception):
    """The files hold no certificate and key that can be used; the message says why."""


class Certificate:
    """A certificate chain and its key, in two PEM files.

    Attributes:
        tls: the context of new TLS connections.
        dtls: the context of new DTLS sessions; its cookies are made of what a session has as its
            application data, an `Asked`.

    Raises:
        CertificateError: they cannot be used.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self._signature = self._files_signature()
        self.tls, self.dtls = self._contexts_make()

    async def refresh(self) -> bool:
        """Look at the files, and use them where they are others than before.

        They are read in a thread: to check an RSA key of 4096 bits takes up to a second.

        Returns:
            Whether there is a new certificate.

        Raises:
            CertificateError: the new files cannot be used, so the old ones stay; once a change.
        """
        signature = self._files_signature()
        if signature == self._signature:
            return False
        self._signature = signature
        renewed = await asyncio.to_thread(Certificate, self._chain, self._key)
        if self._signature is not signature:  # replaced meanwhile, by what was asked for later
            return False
        self.replace(renewed)
        return True

    def replace(self, other: Certificate) -> None:
        """Use the files of another one, as they were when that was made."""
        self._chain, self._key, self._signature = other._chain, other._key, other._signature
        self.tls, self.dtls = other.tls, other.dtls

    def is_same_as(self, other: Certificate) -> bool:
        """Whether both are of the same files, and these as they were."""
        mine = self._chain, self._key, self._signature
        return mine == (other._chain, other._key, other._signature)

    def _contexts_make(self) -> tuple[ssl.SSLContext, SSL.Context]:
        try:
            for path in (self._chain, self._key):
                path.read_bytes()  # OpenSSL does not say which of them is missing
            dtls = dtls_context(self._chain, self._key)
            return tls_context(self._chain, self._key), dtls
        except (OSError, TypeError, ValueError, UnsupportedAlgorithm, SSL.Error) as error:
            raise CertificateError(
                f"cannot use certificate {self._chain} with key {self._key}"
                f" ({failure_reason(error)})"
            ) from error

    def _files_signature(self) -> _Signature:
        signature = []
        for path in (self._chain, self._key):
            try:
                status = path.stat()
            except OSError:
                signature.append((0, 0, 0))
            else:
                signature.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(signature)


def failure_reason(error: Exception) -> str:
    """Why files cannot be used; never the error's own text, which may repeat what they hold."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, SSL.Error):
        return "no certificate that fits the key"
    return getattr(error, "reason", None) or type(error).__name__


def tls_context(chain: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer for the server's end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    # No tickets. In TLS 1.2 a client may come back by its session id all the same: what OpenSSL
    # keeps of sessions in memory cannot be switched off from here, as it can for DTLS.
    context.num_tickets = 0
    context.load_cert_chain(chain, key, password=b"")  # never ask for one on a terminal
    return context


def dtls_context(chain: Path, key: Path) -> SSL.Context:
    """DTLS 1.2 or newer for the server's end, with stateless cookies."""
    context = SSL.Context(SSL.DTLS_SERVER_METHOD)
    context.set_min_proto_version(DTLS_1_2)
    context.set_cipher_list(CIPHERS.encode())
    context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate_chain_file(str(chain))
    private_key = load_pem_private_key(key.read_bytes(), password=None)
    if not isinstance(private_key, (EllipticCurvePrivateKey, Ed25519PrivateKey, RSAPrivateKey)):
        raise TypeError
    context.use_privatekey(private_key)
    context.check_privatekey()
    cookies = Cookies(secrets.token_bytes(32))
    context.set_cookie_generate_callback(lambda session: cookies.make(session.get_app_data()))
    context.set_cookie_verify_callback(
        lambda session, shown: cookies.is_good(session.get_app_data(), shown)
    )
    context.set_alpn_select_callback(alpn_select)
    return context


def alpn_select(_: SSL.Connection, offered: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
    """The first of our protocols that a client offers; who offers none of them is served, too."""
    for protocol in ALPN_PROTOCOLS:
        if protocol.encode() in offered:
            return protocol.encode()
    return SSL.NO_OVERLAPPING_PROTOCOLS
