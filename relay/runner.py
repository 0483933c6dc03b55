"""The relay process: the one place where core, sockets, meter and journal meet.

    sockets ──bytes, time──▶ core ──effects──▶ here ──▶ sockets, meter ──records──▶ journal

Effects are carried out in their order. The event loop does nothing that blocks: the journal is
written and synced in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import secrets
import signal
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial

import uvloop

from relay import compiled, garbage
from relay.clock import Clock
from relay.config import RelayConfig
from relay.control.receiver import ControlSource, Receiver
from relay.core.allocation import TCP_PROTOCOL
from relay.core.effects import (
    AllocationEnded,
    AllocationMoved,
    AllocationStarted,
    Authenticated,
    AuthenticationOutcome,
    BindConnection,
    CloseConnection,
    CloseRelayed,
    CloseReserved,
    ConnectPeer,
    Effect,
    OpenRelayed,
    SendToClient,
    SendToPeer,
    Silenced,
)
from relay.core.holdings import Holdings
from relay.core.turn import TurnServer
from relay.desk import Desk
from relay.log import fault_facts, log, log_install
from relay.machine import (
    RelayFailedError,
    certificate_load,
    descriptors_check,
    descriptors_raise,
    journal_open,
    listen_failed,
    random_bytes_pool,
    ring_open,
)
from relay.metering.meter import Meter
from relay.reload import Reloader
from relay.transports.certificates import CertificateError
from relay.transports.clients import ClientTransports
from relay.transports.listening import Endpoints, ListenError
from relay.transports.moderation import Moderation
from relay.transports.peers import PAUSE_SECONDS, PeerStreams
from relay.transports.relayed import RelayedSockets
from relay.watching.observation import Observation
from relay.watching.server import WatchingServer
from relay.watching.snapshot import RelayState, Snapshot
from relay.watching.tally import Tally
from relay.watching.watchdog import Watchdog

SWEEP_SECONDS = 1.0
CERTIFICATE_POLL_SECONDS = 3.0
LEAVE_SECONDS_MAX = 1.5


class Runner:
    """One relay, from its first socket to its last record.

    Args:
        config: what it is told at its start.
        control: where it hears what it is told later; None: it is told nothing.
        read: reads the configuration anew for a reload (`relay.reload`).
        endpoints: the listening sockets that its parent bound for it; None: it binds its own.
        holdings: what it shares with the other processes; None where it is alone.

    Attributes:
        clients: the ways in for clients.
        desk: what an operator asks of it.
        receiver: what the control channel's messages do here.

    Raises:
        RelayStartError: a listening address cannot be bound, the certificate not be used, or the
            journal not be written.
    """

    def __init__(
        self,
        config: RelayConfig,
        control: ControlSource | None = None,
        read: Callable[[], RelayConfig] | None = None,
        *,
        endpoints: Endpoints | None = None,
        holdings: Holdings | None = None,
    ) -> None:
        self._config = config
        self._control = control
        self._clock = Clock()
        self._turn = TurnServer(config.turn, random_bytes_pool(), holdings)
        self._turn.unix_offset_seconds = self._clock.unix_offset_seconds
        self._certificate = certificate_load(config)
        boot = secrets.token_hex(8)
        self.receiver = Receiver(
            self._turn, self._perform, self._clock.steady, node=config.node, boot=boot
        )
        self._journal = journal_open(config, boot)
        self._ring = ring_open(config)
        try:
            self.clients = ClientTransports(
                addresses=config.listen_endpoints,
                endpoints=endpoints,
                certificate=self._certificate,
                trusted=config.proxy_protocol_from,
                limits=config.client_limits,
                turn=self._turn,
                perform=self._perform,
                clock=self._clock.steady,
                ring=self._ring,
            )
        except ListenError as error:
            if self._ring is not None:
                self._ring.close()
            self._journal.close()
            raise listen_failed(error) from error
        self._relayed = RelayedSockets(
            self._turn,
            self._send_to_client,
            self._clock.steady,
            Moderation(config.moderation_seconds),
            self._ring,
        )
        streams = self.clients.streams
        self._peers = PeerStreams(
            self._turn,
            self._perform,
            lambda connection: connection.client and streams.find(connection.client),
            streams.read_set,
            streams.close_soon,
            self._clock.steady,
        )
        self._meter = Meter(
            self._journal,
            node=config.node,
            boot=boot,
            interval_seconds=config.flush_interval_seconds,
        )
        self._tally = Tally()
        self._watchdog = Watchdog()
        self._observation = Observation(
            process=config.process,
            turn=self._turn,
            clients=self.clients,
            peers=self._peers,
            journal=self._journal,
            tally=self._tally,
            watchdog=self._watchdog,
            state=self.state,
        )
        self.desk = Desk(
            turn=self._turn,
            receiver=self.receiver,
            reloader=Reloader(
                config=config,
                read=read,
                turn=self._turn,
                clients=self.clients,
                certificate=self._certificate,
                perform=self._perform,
                clock=self._clock.steady,
                ports_changed=descriptors_raise,
            ),
            meter=self._meter,
            perform=self._perform,
            clock=self._clock,
        )
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0
        self._timer_is_asked = False
        self._stopping = asyncio.Event()
        self._handlers: Mapping[type[Effect], Callable[..., None]] = {
            SendToClient: self._send_to_client,
            SendToPeer: self._send_to_peer,
            OpenRelayed: self._open_relayed,
            CloseRelayed: self._close_relayed,
            CloseReserved: lambda effect: self._relayed.close_reserved(effect.reserved),
            ConnectPeer: lambda effect: self._peers.connect(effect.connection),
            BindConnection: lambda effect: self._peers.bind(effect.connection),
            CloseConnection: lambda effect: self._peers.close(effect.connection),
            AllocationStarted: self._allocation_started,
            AllocationMoved: self._allocation_moved,
            AllocationEnded: self._allocation_ended,
            Authenticated: self._authenticated,
            Silenced: self._silenced,
        }

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then end every allocation and write what is left."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.desk.hang_up)
        # It was held back until somebody could hear it (manage.py, `relay.processes`).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        await self.serve()

    def stop(self) -> None:
        """Make `serve` end."""
        self._stopping.set()

    def state(self) -> RelayState:
        """What else decides whether this relay takes new allocations."""
        control = self._turn.control
        return RelayState(draining=control.is_draining, cut_off=control.is_cut_off)

    async def serve(self) -> None:
        """Serve until `stop` is called, then end as `run` does."""
        loop = asyncio.get_running_loop()
        self.clients.watch(loop, self._relayed)
        loop.add_reader(self._relayed.fileno(), self._relayed.drain)
        loop.add_reader(self._peers.fileno(), self._peers.drain)
        addresses, of_loopback = self.clients.addresses_count()
        log(
            "relay_started",
            node=self._config.node,
            port=self._config.listen_port,
            addresses=addresses,
            loopback_addresses=of_loopback,
            io_uring=self._ring is not None,
            compiled=compiled.is_used(),
        )
        self._watchdog.start()
        watching = WatchingServer(
            self._config.metrics,
            partial(self._look_from_outside, loop),
            process=self._config.process,
            processes=self._config.processes,
        )
        watching.start()
        works = [
            *(self._flush_forever, self._sweep_forever, self._tidy),
            *(self._certificate_watch, self._peers_wake),
        ]
        if self._control is not None:
            works.append(partial(self._control.run, self.receiver))
        working = [asyncio.create_task(work()) for work in works]
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({*working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        failed = next((task for task in working if task.done()), None)
        self.clients.unwatch(loop)
        loop.remove_reader(self._relayed.fileno())
        loop.remove_reader(self._peers.fileno())
        for task in (*working, stopping):
            task.cancel()
        self.desk.close()
        self._perform(self._turn.end_all())
        self.clients.close()
        self._relayed.close_all()
        if self._ring is not None:
            self._ring.close()
        self._peers.close_all()
        self._watchdog.stop()
        complete = await asyncio.to_thread(self._journal.close)
        # The control channel takes its leave, or it would be waited for.
        await asyncio.wait(working, timeout=LEAVE_SECONDS_MAX)
        await asyncio.to_thread(watching.stop)
        log("relay_stopped", dropped=dict(self._turn.dropped), journal_complete=complete)
        if failed is not None:
            # What cannot be metered is not relayed: the supervisor starts a fresh relay.
            log("relay_failed", level="error", **fault_facts(failed.exception()))
            raise RelayFailedError(f"a fault ended the relay: {failed.exception()!r}")

    def _look_from_outside(self, loop: asyncio.AbstractEventLoop) -> Future[Snapshot]:
        return asyncio.run_coroutine_threadsafe(self._observation.snapshot(), loop)

    async def _flush_forever(self) -> None:
        while True:
            now = self._clock.unix()
            await asyncio.sleep(self._meter.next_flush_at(now) - now)
            for _ in self._meter.flush_steps(self._clock.unix()):
                await asyncio.sleep(0)
            await asyncio.shield(asyncio.to_thread(self._journal.flush))
            self._clock_follow()

    def _clock_follow(self) -> None:
        step = self._clock.follow()
        self._turn.unix_offset_seconds = self._clock.unix_offset_seconds
        if step:
            log("clock_was_set", by_seconds=round(step, 3))
            self._timer_arm()  # credentials end by the time of day

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for _ in self.clients.sweep_steps(self._clock.steady()):
                await asyncio.sleep(0)
            self._turn.usernames.forget(self._clock.unix())
            self.desk.sweep()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(garbage.COLLECT_SECONDS)
            table = self._turn.table
            said = table.entitlements.said_count
            garbage.collect_if_quiet(len(table.by_id) + self._turn.guard.refusals.count + said)

    async def _peers_wake(self) -> None:
        while True:
            # Nothing rests where there never were TCP allocations.
            await asyncio.sleep(PAUSE_SECONDS if self._peers.has_any else SWEEP_SECONDS)
            self._peers.wake()

    async def _certificate_watch(self) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_POLL_SECONDS)
            try:
                if self._certificate is not None and await self._certificate.refresh():
                    log("certificate_changed")
            except CertificateError as error:
                log("certificate_kept", level="warning", reason=str(error))

    # --- effects ----------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self._handlers[type(effect)](effect)
        if not self._timer_is_asked:  # once for all that came together
            self._timer_is_asked = True
            asyncio.get_running_loop().call_soon(self._timer_arm)

    def _send_to_client(self, effect: SendToClient) -> None:
        sent = self.clients.send(effect.datagram, effect.five_tuple)
        self._tally.responded(effect.datagram)
        if effect.allocation is not None:
            effect.allocation.client_sent_bytes += sent

    def _send_to_peer(self, effect: SendToPeer) -> None:
        self._relayed.send(
            effect.allocation, effect.data, effect.peer, dont_fragment=effect.dont_fragment
        )

    def _open_relayed(self, effect: OpenRelayed) -> None:
        allocation = effect.allocation
        try:
            if allocation.protocol == TCP_PROTOCOL:
                self._peers.listen(allocation, effect.relayed)
            else:
                self._relayed.open(allocation, effect.relayed, effect.reserved)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            now = self._clock.steady()
            self._perform(self._turn.relayed_failed(allocation, now, another_may_do=in_use))
        else:
            allocation.client_send = self.clients.sender(allocation.five_tuple)
            self._perform(self._turn.relayed_opened(allocation, self._clock.steady()))

    def _close_relayed(self, effect: CloseRelayed) -> None:
        self._relayed.close(effect.allocation, effect.relayed.family)
        self._peers.close_relayed(effect.allocation, effect.relayed.family)

    def _allocation_started(self, effect: AllocationStarted) -> None:
        self._meter.session_started(effect.allocation, self._clock.unix())
        self._tally.allocation_started(effect.allocation)
        self._tally.authenticated(AuthenticationOutcome.ACCEPTED)

    def _allocation_moved(self, effect: AllocationMoved) -> None:
        self._tally.allocation_moved(effect.allocation, effect.previous)
        effect.allocation.client_send = self.clients.sender(effect.allocation.five_tuple)
        self._meter.session_moved(effect.allocation, self._clock.unix())

    def _allocation_ended(self, effect: AllocationEnded) -> None:
        self._relayed.close_allocation(effect.allocation)
        if effect.allocation.protocol == TCP_PROTOCOL:
            self._peers.close_allocation(effect.allocation)
        self._meter.session_ended(effect.allocation, self._clock.unix())
        self._tally.allocation_ended(effect.allocation)

    def _authenticated(self, effect: Authenticated) -> None:
        self._tally.authenticated(effect.outcome)
        self._meter.authentication(
            client=effect.five_tuple.client,
            transport=effect.five_tuple.transport,
            project=effect.project,
            outcome=effect.outcome.value,
            now=self._clock.unix(),
        )

    def _silenced(self, effect: Silenced) -> None:
        log("relay_silenced", level="warning", limit=effect.limit, dropped=effect.dropped)

    # --- time -------------------------------------------------------------------------------------

    def _timer_arm(self) -> None:
        """Keep one timer at the core's next deadline; a later deadline is found when it rings."""
        self._timer_is_asked = False
        deadline = self._turn.next_deadline()
        if deadline is None:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, deadline - self._clock.steady())
        if self._timer is not None:
            if self._timer_due <= due + 0.001:
                return
            self._timer.cancel()
        # Of one that is due at once uvloop makes a handle that has no time: it is kept here.
        self._timer, self._timer_due = loop.call_at(due, self._deadline), due

    def _deadline(self) -> None:
        self._timer = None
        self._perform(self._turn.handle_deadline(self._clock.steady()))


def run(
    config: RelayConfig,
    control: ControlSource | None = None,
    read: Callable[[], RelayConfig] | None = None,
    *,
    endpoints: Endpoints | None = None,
    holdings: Holdings | None = None,
) -> None:
    """Run one relay until it is told to stop; for the arguments see `Runner`.

    Raises:
        RelayStartError: see `Runner`.
        RelayFailedError: it had to stop.
    """
    log_install()
    # A core dump would hold payload: there is none (relay.md, "Content stays unseen").
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    descriptors_raise(config)
    descriptors_check()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, control, read, endpoints, holdings))


async def _serve(
    config: RelayConfig,
    control: ControlSource | None,
    read: Callable[[], RelayConfig] | None,
    endpoints: Endpoints | None,
    holdings: Holdings | None,
) -> None:
    runner = Runner(config, control, read, endpoints=endpoints, holdings=holdings)
    garbage.settle()
    await runner.run()
