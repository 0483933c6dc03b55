"""What belongs to no app: the front door, the outbox of a development installation, health."""

from __future__ import annotations

import sys
from ipaddress import IPv6Address, ip_address

from django.conf import settings
from django.db import Error, connection
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.mail import MailUnsentError
from mindmore.logs import service_away
from mindmore.outbox import mail_for, mail_list


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """What this is, for somebody who never heard of it."""
    context = {"credentials_url": f"{settings.SITE_URL}/api/v1/credentials"}
    return render(request, "mindmore/landing.html", context)


@require_safe
def outbox(request: HttpRequest) -> HttpResponse:
    """The mails that a development installation would have sent."""
    outbox_guard(request)
    return render(request, "mindmore/outbox.html", {"mails": mail_list()})


@require_safe
def outbox_mail(request: HttpRequest, name: str) -> HttpResponse:
    """One mail of the outbox."""
    outbox_guard(request)
    mail = mail_for(name)
    if mail is None:
        raise Http404
    return render(request, "mindmore/outbox_mail.html", {"mail": mail})


def outbox_guard(request: HttpRequest) -> None:
    """Act as if there were no such page in production, and for whoever asks from elsewhere: the
    links in the mails confirm addresses and set passwords.
    """
    if settings.PRODUCTION or not is_loopback(request.META.get("REMOTE_ADDR", "")):
        raise Http404


def is_loopback(address: str) -> bool:
    """Whether a client with this address is on this machine."""
    try:
        client = ip_address(address)
    except ValueError:
        return False
    mapped = client.ipv4_mapped if isinstance(client, IPv6Address) else None
    return (mapped or client).is_loopback


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Whether this process and its database work: 200 or 503. Sets no cookie."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error:
        return HttpResponse("the database does not answer\n", "text/plain", status=503)
    return HttpResponse("ok\n", "text/plain")


def failed(request: HttpRequest) -> HttpResponse:
    """Django's `handler500`: called while the exception is being handled.

    503 where the reason passes by itself: the database, the queue or the mail server is away.
    Rendered without the request: who is signed in is a question to the database.
    """
    error = sys.exception()
    unsent = isinstance(error, MailUnsentError)
    if error is None or not (unsent or service_away(error)):
        return HttpResponse(render_to_string("500.html"), status=500)
    return HttpResponse(
        render_to_string("503.html", {"mail": unsent}),
        status=503,
        headers={"Retry-After": "60" if unsent else "5", "Cache-Control": "no-store"},
    )
