"""A new configuration for a relay that runs: whole, or not at all.

    read ──▶ made ready ──▶ needs no restart? ──▶ in its place at once ──▶ live calls held to it,
     in a thread: files        └─ no: named                                  some at a time
       └─ a fault: one line says why; nothing has changed

What a client or a peer holds stays: allocations, their relayed addresses, connections, sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from relay.config import RelayConfig
from relay.core.effects import Effect
from relay.core.policy import PeerPolicy
from relay.core.replacement import FIXED, settings_changed
from relay.core.turn import TurnServer
from relay.host_addresses import relayed_address_fault
from relay.transports.certificates import Certificate, CertificateError
from relay.transports.clients import ClientTransports

# What is made at the start of the process only, and who says it.
NEEDS_RESTART: Final[Mapping[str, str]] = {
    "node": "MINDMORE_TURN_NODE",
    "listen_addresses": "MINDMORE_TURN_LISTEN_ADDRESS",
    "listen_port": "MINDMORE_TURN_PORT",
    "tls_port": "MINDMORE_TURN_TLS_PORT",
    "journal_directory": "MINDMORE_HOME",
    "cut_off_seconds": "MINDMORE_TURN_CUT_OFF_SECONDS",
    "moderation_seconds": "MINDMORE_TURN_MODERATION_MICROSECONDS",
    "io_uring": "MINDMORE_TURN_IO_URING",
    "compiled": "MINDMORE_TURN_COMPILED",
    "control_sources": "REDIS_URL or DATABASE_URL",
    "metrics": "MINDMORE_TURN_METRICS_ADDRESS or MINDMORE_TURN_METRICS_PORT",
    "processes": "MINDMORE_TURN_PROCESSES",
    "realm": "MINDMORE_TURN_REALM",
    "nat_discovery": "MINDMORE_TURN_OTHER_ADDRESS and MINDMORE_TURN_OTHER_PORT",
}
TLS_SWITCHED: Final = "MINDMORE_TURN_CERTIFICATE (TLS on or off)"
# Several processes divide the ports, and what they share is as large as there were at the start.
DIVIDED: Final[Mapping[str, str]] = {
    "relay_ports": "MINDMORE_TURN_RELAY_PORTS (of several processes)",
    "relay_addresses": "MINDMORE_TURN_RELAY_ADDRESS (of several processes)",
}
LIVE: Final = frozenset(
    {"turn", "certificate", "certificate_key", "proxy_protocol_from", "client_limits"}
)


class ConfigurationError(Exception):
    """A configuration that cannot be used; the message says why, and what to do, in one line."""


@dataclass(frozen=True)
class ReloadOutcome:
    """What became of a reload.

    Attributes:
        changed: what has changed, by name; nothing where all was as before.
        refusal: why nothing was taken over; empty where it was.
    """

    changed: tuple[str, ...] = ()
    refusal: str = ""


class Reloader:
    """Puts new configurations in the place of old ones.

    Attributes:
        config: the one that holds now.
    """

    def __init__(
        self,
        *,
        config: RelayConfig,
        read: Callable[[], RelayConfig] | None,
        turn: TurnServer,
        clients: ClientTransports,
        certificate: Certificate | None,
        perform: Callable[[Iterable[Effect]], None],
        clock: Callable[[], float],
        ports_changed: Callable[[RelayConfig], None],
    ) -> None:
        """Begin with what the relay was started with.

        Args:
            config: that.
            read: reads the configuration anew, in a thread, and raises ConfigurationError; None
                where there is none but `config`, whose certificate is read again all the same.
            turn: the core.
            clients: the ways in.
            certificate: the one that is in use.
            perform: carries out effects.
            clock: steady seconds.
            ports_changed: is told a configuration with other relayed ports or addresses.
        """
        self.config = config
        self._read = read
        self._turn = turn
        self._clients = clients
        self._certificate = certificate
        self._perform = perform
        self._clock = clock
        self._ports_changed = ports_changed
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> ReloadOutcome:
        """Read the configuration and take it over; effective when this returns."""
        async with self._one_at_a_time:
            try:
                config, certificate = await asyncio.to_thread(self._make_ready)
                changed = self._changed(config, certificate)
                enforcement = self._turn.settings_replace(config.turn)
            except (ConfigurationError, ValueError) as error:
                return ReloadOutcome(refusal=one_line(error))
            if self._certificate is not None and certificate is not None:
                self._certificate.replace(certificate)
            self._clients.settings_replace(config.proxy_protocol_from, config.client_limits)
            self.config = config
            if {"relay ports", "relay addresses"}.intersection(changed):
                self._ports_changed(config)
            while not enforcement.is_done:
                self._perform(enforcement.step(self._clock()))
                await asyncio.sleep(0)
            self._perform(())  # ends may be due earlier than before
            return ReloadOutcome(changed)

    def _make_ready(self) -> tuple[RelayConfig, Certificate | None]:
        """Read everything that has to be read, and try what can be tried; changes nothing."""
        config = self.config if self._read is None else self._read()
        needed = restart_needed(self.config, config)
        if needed:
            raise ConfigurationError(
                f"{', '.join(needed)} cannot change while the relay runs: restart it for that, or"
                " take the change back; nothing has changed"
            )
        PeerPolicy(config.turn.peer_rules)
        for host in set(config.turn.relay_addresses) - set(self.config.turn.relay_addresses):
            relay_address_try(host)
        if config.certificate is None or config.certificate_key is None:
            return config, None
        try:
            return config, Certificate(config.certificate, config.certificate_key)
        except CertificateError as error:
            raise ConfigurationError(str(error)) from error

    def _changed(self, config: RelayConfig, certificate: Certificate | None) -> tuple[str, ...]:
        names = [
            *settings_changed(self.config.turn, config.turn),
            *config_changed(self.config, config),
        ]
        used = self._certificate
        if certificate is not None and used is not None and not certificate.is_same_as(used):
            names.append("certificate")
        names = [name for name in names if name not in ("turn", "certificate_key")]
        return tuple(dict.fromkeys(name.replace("_", " ") for name in names))


def config_changed(before: RelayConfig, after: RelayConfig) -> list[str]:
    """The names of what differs."""
    names = (field.name for field in fields(RelayConfig))
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def restart_needed(before: RelayConfig, after: RelayConfig) -> list[str]:
    """What differs and cannot change while the relay runs: the variables that say it."""
    names = [name for name in config_changed(before, after) if name not in LIVE]
    changed = settings_changed(before.turn, after.turn)
    needed = [NEEDS_RESTART.get(name, name) for name in names]
    needed += [NEEDS_RESTART.get(name, name) for name in changed if name in FIXED]
    if before.processes > 1:
        needed += [DIVIDED[name] for name in changed if name in DIVIDED]
    if (before.certificate is None) != (after.certificate is None):
        needed = [TLS_SWITCHED, *(name for name in needed if name != NEEDS_RESTART["tls_port"])]
    return needed


def relay_address_try(host: str) -> None:
    """See that relayed sockets can be opened at an address.

    Raises:
        ConfigurationError: they cannot.
    """
    fault = relayed_address_fault(host)
    if fault:
        raise ConfigurationError(fault)


def one_line(error: Exception) -> str:
    """The message of an error, as one line."""
    return " ".join(str(error).split())
