"""System checks: a public service is reached the way its settings say.

E001  people would type their passwords over plain HTTP (production)
E002  clients would be told to look for the relay on their own machine (production)
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def site_url_check(**options: Any) -> list[CheckMessage]:
    if not settings.PRODUCTION or settings.SECURE:
        return []
    return [
        Error(
            f"MINDMORE_SITE_URL is {settings.SITE_URL}, and production is served by HTTPS: set it "
            "to the https:// address of the TLS proxy in front of the web port",
            id="mindmore.E001",
        )
    ]


@register()
def turn_host_check(**options: Any) -> list[CheckMessage]:
    if not settings.PRODUCTION or not leads_back(settings.TURN_HOST):
        return []
    return [
        Error(
            f"MINDMORE_TURN_HOST is {settings.TURN_HOST}, where no client finds this relay: set it "
            "to this machine's public name or address",
            id="mindmore.E002",
        )
    ]


def leads_back(host: str) -> bool:
    """Whether `host` means, to whoever reads it, the machine that they are on, or none."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host.rstrip(".").lower() in ("localhost", "") or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
