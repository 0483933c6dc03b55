"""A relay in a thread of this process, with real sockets, and clients of each transport."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

import uvloop
from OpenSSL import SSL

from relay.config import ClientLimits, RelayConfig
from relay.core.policy import PeerPolicyRules
from relay.core.settings import TurnSettings
from relay.runner import Runner
from tests.ports import free_port
from tests.stream_client import StreamClient
from tests.turn_client import Address, TurnClient, credentials_mint

Result = TypeVar("Result")
SECRET = "secret of these tests"
HOSTS = {4: "127.0.0.1", 6: "::1"}
PATIENCE_SECONDS = 30.0


class RunningRelay:
    """A relay that runs in a thread."""

    def __init__(self, config: RelayConfig) -> None:
        self.config = config
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(self._serve())

    async def _serve(self) -> None:
        self.runner = Runner(self.config)
        self.loop = asyncio.get_running_loop()
        self.loop.call_soon(self.ready.set)
        await self.runner.serve()

    def stop(self) -> None:
        """End it; a second time: nothing."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.runner.stop)
            self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()

    def ask(self, question: Callable[[Runner], Result]) -> Result:
        """The answer to a question about it, found in its own thread."""

        async def answer() -> Result:
            return question(self.runner)

        return asyncio.run_coroutine_threadsafe(answer(), self.loop).result(PATIENCE_SECONDS)

    def connections(self) -> int:
        """How many TCP and TLS connections it holds."""
        return self.ask(lambda runner: len(runner.clients.streams))

    def sessions(self) -> int:
        """How many DTLS sessions it holds."""
        return self.ask(
            lambda runner: sum(len(each.dtls or ()) for each in runner.clients.datagrams)
        )

    def dropped(self, reason: str) -> int:
        """How much it dropped for a reason."""
        return self.ask(lambda runner: runner._turn.dropped[reason])

    def counters(self) -> tuple[int, int, int, int]:
        """Client received and sent, peer received and sent, of the one allocation there is."""

        def question(runner: Runner) -> tuple[int, int, int, int]:
            (found,) = runner._turn.table.by_id.values()
            return (
                found.client_received_bytes,
                found.client_sent_bytes,
                found.peer_received_bytes,
                found.peer_sent_bytes,
            )

        return self.ask(question)

    def allocations(self) -> int:
        """How many allocations live."""
        return self.ask(lambda runner: len(runner._turn.table.by_id))

    def credential(self) -> tuple[str, str]:
        """A good one."""
        expires_at = int(time.clock_gettime(time.CLOCK_REALTIME)) + 3600
        return credentials_mint(SECRET, f"{expires_at}:prj_aaaaaaaaaaaa/crd_a")

    def client(
        self, transport: str = "tcp", family: int = 4, port: int | None = None
    ) -> TurnClient:
        """A client over udp, tcp, tls or dtls."""
        server = HOSTS[family], port or self.config.listen_port
        if transport == "udp":
            return DatagramClient(server, *self.credential())
        if transport == "dtls":
            return DtlsClient(server, *self.credential())
        return StreamClient(server, *self.credential(), tls=transport == "tls")

    def connect(self) -> socket.socket:
        """A bare TCP connection."""
        return socket.create_connection(
            (HOSTS[4], self.config.listen_port), timeout=PATIENCE_SECONDS
        )


@contextmanager
def relay_running(
    home: Path,
    certificate: tuple[Path, Path] | None,
    *,
    limits: ClientLimits | None = None,
    trusted: tuple[str, ...] = (),
) -> Iterator[RunningRelay]:
    """Start one, wait for it, end it. It answers any number of strangers, as they are many here."""
    with config_running(
        relay_config(home, certificate, limits or ClientLimits(), trusted)
    ) as running:
        yield running


@contextmanager
def config_running(config: RelayConfig) -> Iterator[RunningRelay]:
    """The same with a configuration of the test's own."""
    running = RunningRelay(config)
    running.thread.start()
    assert running.ready.wait(PATIENCE_SECONDS)
    try:
        yield running
    finally:
        running.stop()


def until(fact: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class DatagramClient(TurnClient):
    """The test client, over IPv6 too."""

    def __init__(self, server: Address, username: str, password: str) -> None:
        super().__init__(("127.0.0.1", 9), username, password)
        self.socket.close()
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(server)


class DtlsClient(DatagramClient):
    """The test client over DTLS."""

    def __init__(self, server: Address, username: str = "", password: str = "") -> None:
        super().__init__(server, username, password)
        self.dtls = dtls_connection()
        self.handshake()

    def handshake(self) -> None:
        while True:
            try:
                self.dtls.do_handshake()
            except SSL.WantReadError:
                self.flush()
                self.dtls.bio_write(self.socket.recv(65536))
            else:
                self.flush()
                return

    def flush(self) -> None:
        try:
            self.socket.send(self.dtls.bio_read(65536))
        except SSL.WantReadError:
            pass

    def transmit(self, datagram: bytes) -> None:
        self.dtls.send(datagram)
        self.flush()
        self.sent.append(len(datagram))

    def datagram_receive(self) -> bytes:
        while True:
            self.dtls.bio_write(self.socket.recv(65536))
            try:
                datagram = self.dtls.recv(65536)
            except SSL.WantReadError:
                continue
            self.received.append(len(datagram))
            return datagram


def dtls_connection() -> SSL.Connection:
    """A client's end, which takes any certificate."""
    connection = SSL.Connection(SSL.Context(SSL.DTLS_CLIENT_METHOD))
    connection.set_connect_state()
    connection.set_ciphertext_mtu(1200)
    return connection


def relay_config(
    home: Path,
    certificate: tuple[Path, Path] | None,
    limits: ClientLimits,
    trusted: tuple[str, ...],
) -> RelayConfig:
    chain, key = certificate or (None, None)
    return RelayConfig(
        node="test",
        listen_addresses=tuple(HOSTS.values()),
        listen_port=free_port(),
        tls_port=free_port() if certificate else None,
        certificate=chain,
        certificate_key=key,
        proxy_protocol_from=tuple(map(ip_network, trusted)),
        client_limits=limits,
        journal_directory=home / "journal",
        flush_interval_seconds=5,
        turn=TurnSettings(
            realm="turn",
            secrets=(SECRET.encode(),),
            nonce_keys=(b"nonce key",),
            relay_addresses=(HOSTS[4],),
            tcp_relay=True,
            unauthenticated_answers_per_second=0,
            peer_rules=PeerPolicyRules(allowed=("127.0.0.0/8",)),
        ),
    )
