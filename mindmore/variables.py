"""The names of this service's variables, so that a misspelt one does not go unnoticed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

PREFIX = "MINDMORE_"
NAMES = frozenset(
    PREFIX + name
    for name in (
        "HOME",
        "PROFILE",
        "DEMO",
        "WEB_HOST",
        "WEB_PORT",
        "SITE_URL",
        "ALLOWED_HOSTS",
        "TURN_HOST",
        "TURN_LISTEN_ADDRESS",
        "TURN_PORT",
        "TURN_CERTIFICATE",
        "TURN_CERTIFICATE_KEY",
        "TURN_TLS_PORT",
        "TURN_PROXY_PROTOCOL_FROM",
        "TURN_RELAY_ADDRESS",
        "TURN_OTHER_ADDRESS",
        "TURN_OTHER_PORT",
        "TURN_TCP_RELAY",
        "TURN_MOBILITY",
        "TURN_CHANNEL_NUMBERS",
        "TURN_RELAY_PORTS",
        "TURN_OWN_ADDRESSES",
        "TURN_ALLOWED_PEERS",
        "TURN_DENIED_PEERS",
        "TURN_HAIRPIN",
        "TURN_UNAUTHENTICATED_ANSWERS_PER_SECOND",
        "TURN_FAILURES_PER_MINUTE",
        "TURN_PROJECT_ALLOCATIONS_MAX",
        "TURN_PROJECT_BITRATE_KBPS_MAX",
        "TURN_ON_EXPIRY",
        "TURN_MEDIA_ONLY",
        "TURN_CUT_OFF_SECONDS",
        "TURN_MODERATION_MICROSECONDS",
        "TURN_IO_URING",
        "TURN_COMPILED",
        "TURN_REALM",
        "TURN_PROCESSES",
        "TURN_METRICS_ADDRESS",
        "TURN_METRICS_PORT",
        "TURN_NODE",
        "SECRET_KEY",
        "TURN_SECRETS",
        "TURN_NONCE_KEYS",
        "TURN_OAUTH_KEYS",
        "TURN_OAUTH_SERVER_NAME",
        "MAIL_FROM",
        "SMTP_HOST",
        "SMTP_PORT",
        "SMTP_USER",
        "SMTP_PASSWORD",
        "SERVICE_NAME",
        "LEGAL_ENTITY",
        "LEGAL_ADDRESS",
        "DPO_EMAIL",
        "SERVER_LOCATION",
        "PROCESSORS",
        "BILLING_TIME_ZONE",
    )
)
NAMES_OF_PROGRAMS = frozenset({"MINDMORE_READY_FD"})  # from one of ours to another
PREFIX_OF_TESTS = PREFIX + "TESTS_"


def unknown_warnings(names: Iterable[str]) -> list[str]:
    """A line for each of `names` that looks like one of ours and is none."""
    ours = {name for name in names if name.startswith(PREFIX)}
    unknown = sorted(ours - NAMES - NAMES_OF_PROGRAMS)
    return [unknown_warning(name) for name in unknown if not name.startswith(PREFIX_OF_TESTS)]


def unknown_warning(name: str) -> str:
    """What to say of a variable that nothing reads."""
    near = get_close_matches(name, NAMES, n=1, cutoff=0.8)
    hint = f": did you mean {near[0]}?" if near else ""
    return f"warning: there is no setting {name}, it changes nothing{hint}"
