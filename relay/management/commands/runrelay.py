"""`manage.py runrelay`: settings to configuration to `relay.runner`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from ipaddress import ip_address, ip_network
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings as settings_of_the_start
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils import timezone

from relay.config import RelayConfig
from relay.control.channel import ControlChannel
from relay.control.snapshot import Snapshot
from relay.core.access_tokens import ThirdParty, TokenKey
from relay.core.addresses import SockAddress
from relay.core.channeldata import CHANNEL_MAX_STRICT, CHANNEL_MAX_WIDE
from relay.core.holdings import Holdings
from relay.core.limits import OnExpiry, ProjectLimits
from relay.core.policy import PeerPolicyRules
from relay.core.settings import NatDiscovery, TurnSettings
from relay.host_addresses import host_addresses
from relay.log import log
from relay.machine import RelayFailedError, RelayStartError, addresses_try
from relay.own_endpoints import HostNames
from relay.processes import processes_check, run_processes
from relay.reload import ConfigurationError, one_line, restart_needed
from relay.runner import run
from relay.sealing import gcm_open
from relay.services.access_tokens import keys_without_project_alone
from relay.services.snapshot import snapshot_read_alone
from relay.transports.listening import Endpoints

NAMES = HostNames()
CHANNEL_NUMBERS_MAX = {"wide": CHANNEL_MAX_WIDE, "strict": CHANNEL_MAX_STRICT}


class Command(BaseCommand):
    help = "Run the STUN and TURN relay until SIGTERM."
    requires_system_checks = ()

    def handle(self, *args: object, **options: object) -> None:
        try:
            config = relay_config(settings_of_the_start)
            metrics_apart(config)
            addresses_try(config)
            database_driver_load()
            if config.processes == 1:
                run(config, control_channel(config), configuration_read)
            else:
                run_processes(config, serve_process)
        except (RelayStartError, ValueError) as error:
            raise CommandError(str(error)) from error
        except RelayFailedError:  # it has said why in its log
            sys.exit(1)


def database_driver_load() -> None:
    """Load what speaks to the database, and connect to nothing.

    Loaded at its first use, in a thread, it would hold up the event loop and every call with it.
    """
    connections[DEFAULT_DB_ALIAS]


def serve_process(config: RelayConfig, endpoints: Endpoints, holdings: Holdings) -> None:
    """Be one of several processes."""

    def read() -> RelayConfig:
        return configuration_read().for_process(config.process)

    now = configuration_at_start(config, read)
    run(now, control_channel(now), read, endpoints=endpoints, holdings=holdings)


def configuration_at_start(config: RelayConfig, read: Callable[[], RelayConfig]) -> RelayConfig:
    """The configuration of one of several processes that starts, or starts again.

    Its parent's is as old as the parent; the others may have reloaded since.
    """
    try:
        found = read()
    except ConfigurationError:
        return config
    return config if restart_needed(config, found) else found


def configuration_read() -> RelayConfig:
    """The configuration as the environment and its files have it now.

    Raises:
        ConfigurationError: it cannot be used.
    """
    try:
        config = relay_config(settings_read())
        if config.processes > 1:
            processes_check(config)
        return config
    except (ImproperlyConfigured, RelayStartError, ValueError) as error:
        raise ConfigurationError(one_line(error)) from error
    except Exception as error:  # never its text, which may hold anything
        raise ConfigurationError(f"the settings cannot be read ({type(error).__name__})") from error


def settings_read() -> ModuleType:
    """The settings evaluated once more, beside those that this process was started with."""
    spec = find_spec(settings_of_the_start.SETTINGS_MODULE)
    if spec is None or spec.loader is None:
        raise ImproperlyConfigured("the settings are no module")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relay_config(settings: Any) -> RelayConfig:
    """The configuration of this process, from settings: Django's, or those read again."""
    rules = PeerPolicyRules(
        allowed=tuple(settings.TURN_ALLOWED_PEERS),
        denied=tuple(settings.TURN_DENIED_PEERS),
        own_addresses=own_addresses(settings),
        own_endpoints=own_endpoints(settings),
        relay_ports=settings.TURN_RELAY_PORTS,
        hairpin=settings.TURN_HAIRPIN,
    )
    for address in settings.TURN_RELAY_ADDRESSES:
        if ip_address(address).is_unspecified:
            raise RelayStartError(
                f"clients cannot be told the relayed address {address}: set"
                " MINDMORE_TURN_RELAY_ADDRESS to the public address of this host"
            )
    turn = TurnSettings(
        realm=settings.TURN_REALM,
        secrets=tuple(secret.encode() for secret in settings.TURN_SECRETS),
        nonce_keys=tuple(key.encode() for key in settings.TURN_NONCE_KEYS),
        relay_addresses=tuple(settings.TURN_RELAY_ADDRESSES),
        relay_ports=settings.TURN_RELAY_PORTS,
        peer_rules=rules,
        credential_lifetime_seconds_max=settings.TURN_CREDENTIAL_TTL_SECONDS_MAX,
        nat_discovery=nat_discovery(settings),
        third_party=third_party(settings),
        tcp_relay=settings.TURN_TCP_RELAY,
        mobility=settings.TURN_MOBILITY,
        channel_number_max=CHANNEL_NUMBERS_MAX[settings.TURN_CHANNEL_NUMBERS],
        project_limits=project_limits(settings),
        unauthenticated_answers_per_second=settings.TURN_UNAUTHENTICATED_ANSWERS_PER_SECOND,
        failures_per_minute=settings.TURN_FAILURES_PER_MINUTE,
    )
    return RelayConfig(
        node=settings.TURN_NODE,
        listen_addresses=tuple(settings.TURN_LISTEN_ADDRESSES),
        listen_port=settings.TURN_PORT,
        tls_port=settings.TURN_TLS_PORT,
        certificate=settings.TURN_CERTIFICATE,
        certificate_key=settings.TURN_CERTIFICATE_KEY,
        proxy_protocol_from=tuple(
            ip_network(network) for network in settings.TURN_PROXY_PROTOCOL_FROM
        ),
        journal_directory=settings.TURN_JOURNAL_DIRECTORY,
        flush_interval_seconds=settings.TURN_FLUSH_INTERVAL_SECONDS,
        turn=turn,
        metrics=metrics_endpoint(settings),
        processes=settings.TURN_PROCESSES,
        cut_off_seconds=settings.TURN_CUT_OFF_SECONDS,
        moderation_seconds=settings.TURN_MODERATION_MICROSECONDS / 1e6,
        io_uring=settings.TURN_IO_URING,
        compiled=settings.TURN_COMPILED,
        control_sources=control_sources(settings),
    )


def metrics_endpoint(settings: Any) -> SockAddress | None:
    """Where metrics and health are answered; None where they are switched off."""
    port = settings.TURN_METRICS_PORT
    return (settings.TURN_METRICS_ADDRESS, port) if port else None


def metrics_apart(config: RelayConfig) -> None:
    """See that metrics have a port that clients do not use.

    Raises:
        RelayStartError: they have not.
    """
    if config.metrics is None:
        return
    address, port = config.metrics
    hosts = {host for host, taken in config.listen_endpoints if taken == port}
    if any(host == address or ip_address(host).is_unspecified for host in hosts) or (
        hosts and ip_address(address).is_unspecified
    ):
        raise RelayStartError(
            f"MINDMORE_TURN_METRICS_PORT is {port}, where clients of the relay come: set it to"
            " another port, or to 0 for none"
        )


def control_sources(settings: Any) -> tuple[str, ...]:
    """Where Valkey and the database are."""
    database = settings.DATABASES["default"]  # Django adds to it once it is used
    names = "HOST", "PORT", "NAME", "USER", "PASSWORD"
    return settings.REDIS_URL, *(str(database.get(name, "")) for name in names)


def control_channel(config: RelayConfig) -> ControlChannel:
    """Where this process hears what it is told while it runs."""
    return ControlChannel(
        url=settings_of_the_start.REDIS_URL,
        snapshot=Snapshots(config),
        cut_off_seconds=config.cut_off_seconds,
        log=log,
        process=config.process,
    )


class Snapshots:
    """What the database says at the moment of a call, which is made in a thread.

    With its first answer it also says whether the projects of the token keys exist: no relay waits
    for the database to start, and of several processes one says it.
    """

    def __init__(self, config: RelayConfig) -> None:
        known = config.turn.third_party if config.process == 0 else None
        self._keys = known.keys if known else ()

    def __call__(self, *, since: int) -> Snapshot:
        snapshot = snapshot_read_alone(since=since, now=timezone.now())
        keys, self._keys = self._keys, ()
        for key in keys_without_project_alone(keys) if keys else ():
            log("token_project_unknown", level="warning", kid=key.kid, project=key.project)
        return snapshot


def nat_discovery(settings: Any) -> NatDiscovery | None:
    """The four addresses of RFC 5780; None where there is no second one.

    Raises:
        ValueError: the first one is not known.
    """
    other = settings.TURN_OTHER_ADDRESS
    if not other:
        return None
    addresses = settings.TURN_LISTEN_ADDRESSES
    first = next((host for host in addresses if (":" in host) == (":" in other)), None)
    ports = settings.TURN_PORT, settings.TURN_OTHER_PORT
    if first is None or ip_address(first).is_unspecified:
        raise ValueError(
            f"MINDMORE_TURN_OTHER_ADDRESS is {other}: MINDMORE_TURN_LISTEN_ADDRESS must name an"
            " address of the same family, and not 0.0.0.0 or ::"
        )
    if first == other:
        raise ValueError(
            f"MINDMORE_TURN_OTHER_ADDRESS is {other}, which MINDMORE_TURN_LISTEN_ADDRESS names"
            " first: set it to another address of this host"
        )
    if ports[0] == ports[1]:
        raise ValueError(
            f"MINDMORE_TURN_OTHER_PORT and MINDMORE_TURN_PORT are both {ports[0]}: set one of them"
            " to another port"
        )
    return NatDiscovery(hosts=(first, other), ports=ports)


def third_party(settings: Any) -> ThirdParty | None:
    """Whose access tokens are accepted; None where there is no key."""
    keys = tuple(TokenKey(*key) for key in settings.TURN_OAUTH_KEYS)
    return ThirdParty(settings.TURN_OAUTH_SERVER_NAME, keys, gcm_open) if keys else None


def project_limits(settings: Any) -> ProjectLimits:
    """The limits of projects that have none of their own; 0 in the settings is no limit."""
    return ProjectLimits(
        on_expiry=OnExpiry(settings.TURN_ON_EXPIRY),
        allocations_max=settings.TURN_PROJECT_ALLOCATIONS_MAX or None,
        bitrate_bps_max=settings.TURN_PROJECT_BITRATE_KBPS_MAX * 1000 or None,
        media_only=settings.TURN_MEDIA_ONLY,
    )


def own_addresses(settings: Any) -> tuple[str, ...]:
    """This server's addresses: a peer may be on them only behind a relayed port."""
    addresses = {
        *settings.TURN_LISTEN_ADDRESSES,
        *settings.TURN_RELAY_ADDRESSES,
        *settings.TURN_OWN_ADDRESSES,
        *filter(None, [settings.TURN_OTHER_ADDRESS]),
        *host_addresses(),
    }
    return tuple(address for address in addresses if not ip_address(address).is_unspecified)


def own_endpoints(settings: Any) -> tuple[SockAddress, ...]:
    """Where this service itself listens (`relay.own_endpoints`)."""
    database = settings.DATABASES["default"]
    redis = urlsplit(settings.REDIS_URL)
    discovery = nat_discovery(settings)
    metrics = metrics_endpoint(settings)
    named = [
        *(("turn", address, settings.TURN_PORT) for address in settings.TURN_LISTEN_ADDRESSES),
        *(("tls", address, settings.TURN_TLS_PORT) for address in settings.TURN_LISTEN_ADDRESSES),
        *(("discovery", *endpoint) for endpoint in (discovery.endpoints if discovery else ())),
        *(("metrics", *endpoint) for endpoint in ([metrics] if metrics else ())),
        ("web", settings.WEB_HOST, settings.WEB_PORT),
        ("database", database.get("HOST", ""), int(database.get("PORT") or 5432)),
        ("valkey", redis.hostname or "", redis.port or 6379),
    ]
    return NAMES.endpoints((service, host, port or 0) for service, host, port in named)
