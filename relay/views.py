"""The pages of a project's sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.permissions import Permission
from accounts.requests import PersonalRequest
from accounts.selectors import project_for, user_may
from relay.addresses import address_masked, address_with_port
from relay.models import Session
from relay.selectors import SessionCursor, SessionRow, sessions_page


@dataclass(frozen=True)
class ShownSession:
    """One row of the page: the addresses in full, or their networks, by who looks."""

    session: Session
    duration: timedelta
    clients: list[str]
    peers: list[str]
    peers_more: int


@login_required
@never_cache
@require_safe
def sessions(request: PersonalRequest, public_id: str) -> HttpResponse:
    """The sessions of a project, newest first; `?behind=` names the place to go on from."""
    project = project_for(user=request.user, public_id=public_id)
    behind = None
    if place := request.GET.get("behind"):
        behind = SessionCursor.parse(place)
        if behind is None:
            raise Http404
    page = sessions_page(project=project, behind=behind)
    unmasked = user_may(
        user=request.user,
        organisation=project.organisation,
        permission=Permission.ADDRESSES_READ,
    )
    now = timezone.now()
    context = {
        "project": project,
        "rows": [_shown(row, now, unmasked=unmasked) for row in page.rows],
        "older": page.older,
        "behind": behind,
        "unmasked": unmasked,
    }
    return render(request, "relay/sessions.html", context)


def _shown(row: SessionRow, now: datetime, *, unmasked: bool) -> ShownSession:
    session = row.session
    show = address_with_port if unmasked else _masked
    return ShownSession(
        session=session,
        duration=(session.ended_at or now) - session.started_at,
        clients=list(dict.fromkeys(show(*client) for client in row.clients)),
        peers=list(dict.fromkeys(show(*peer) for peer in row.peers)),
        peers_more=row.peers_more,
    )


def _masked(address: str, port: int) -> str:
    return address_masked(address)
