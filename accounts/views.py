"""The pages of projects, their API keys, and one's own account."""

from __future__ import annotations

from typing import Any

from allauth.account.views import SignupView as AllauthSignupView
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_safe

from accounts.forms import ApiKeyForm, ProfileForm, ProjectForm
from accounts.key_handover import key_hold, key_take
from accounts.mail import MailUnsentError
from accounts.models import Project, User
from accounts.permissions import Permission
from accounts.requests import PersonalRequest
from accounts.selectors import (
    api_key_for,
    memberships_for,
    organisations_for,
    project_for,
    projects_for,
    user_may,
)
from accounts.services import api_key_create, api_key_revoke, project_create

MAIL_UNSENT = (
    "The mail that confirms your address could not be sent just now, so nothing you entered was "
    "stored. Please try again in a few minutes."
)


class SignupView(AllauthSignupView):  # type: ignore[misc]
    """allauth's, but an account is there only once the mail that confirms it is on its way."""

    def form_valid(self, form: Any) -> HttpResponse:
        """Store and send, or do neither; a taken address gets the same answer."""
        session = self.request.session
        before = dict(session.items())
        try:
            with transaction.atomic():
                answer: HttpResponse = super().form_valid(form)
        except MailUnsentError:
            session.clear()  # it speaks of the person who is not stored
            session.update(before)
            form.add_error(None, MAIL_UNSENT)
            answer = self.form_invalid(form)
            answer.status_code = 503
        return answer


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: PersonalRequest) -> HttpResponse:
    """One's own account: the name, the organisations, and where the rest is changed."""
    form = ProfileForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Your name is saved.")
        return redirect("accounts:profile")
    context = {"form": form, "memberships": memberships_for(user=request.user)}
    return render(request, "accounts/profile.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def project_list(request: PersonalRequest) -> HttpResponse:
    """The projects one may see; for those who may, a form that makes another."""
    organisations = list(organisations_for(user=request.user, permission=Permission.PROJECTS_WRITE))
    form = ProjectForm(request.POST or None, organisations=organisations) if organisations else None
    if request.method == "POST":
        if form is None:
            raise PermissionDenied
        if form.is_valid():
            project = project_create(organisation=form.organisation, name=form.cleaned_data["name"])
            messages.success(
                request, f"The project “{project.name}” is made. Make an API key next."
            )
            return redirect("accounts:project", project.public_id)
    context = {"form": form, "projects": projects_for(user=request.user)}
    return render(request, "accounts/project_list.html", context)


@login_required
@require_safe
def project_detail(request: PersonalRequest, public_id: str) -> HttpResponse:
    """One project and its API keys."""
    project = project_for(user=request.user, public_id=public_id)
    return render_project(request, project, ApiKeyForm())


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def api_key_new(request: PersonalRequest, public_id: str) -> HttpResponse:
    """Make an API key and go on to the page that shows it: reloading that makes no second one."""
    if request.method != "POST":  # typed by hand, or where signing in again led back to
        return redirect("accounts:project", public_id)
    project = writable_project_for(request.user, public_id)
    form = ApiKeyForm(request.POST)
    if not form.is_valid():
        return render_project(request, project, form)
    api_key, text = api_key_create(project=project, name=form.cleaned_data["name"])
    key_hold(request.session, api_key=api_key, text=text)
    return redirect("accounts:api_key", project.public_id, api_key.prefix)


@login_required
@require_GET  # a HEAD would use up the one time
@never_cache
def api_key_shown(request: PersonalRequest, public_id: str, prefix: str) -> HttpResponse:
    """Show a new API key, once: this takes it from where it waited."""
    project = writable_project_for(request.user, public_id)
    api_key = api_key_for(project=project, prefix=prefix)
    text = key_take(request.session, api_key=api_key)
    if text is None:
        messages.info(
            request,
            f"The key “{api_key.name}” is shown only once. If you have not copied it, "
            "revoke it and make another.",
        )
        return redirect("accounts:project", project.public_id)
    context = {
        "project": project,
        "api_key": api_key,
        "text": text,
        "credentials_url": f"{settings.SITE_URL}/api/v1/credentials",
    }
    return render(request, "accounts/api_key_shown.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def api_key_revocation(request: PersonalRequest, public_id: str, prefix: str) -> HttpResponse:
    """Ask first, then refuse the key from now on."""
    project = writable_project_for(request.user, public_id)
    api_key = api_key_for(project=project, prefix=prefix)
    if request.method == "POST":
        api_key_revoke(api_key=api_key)
        messages.success(request, f"The key {api_key.prefix}… is revoked.")
        return redirect("accounts:project", project.public_id)
    context = {"project": project, "api_key": api_key}
    return render(request, "accounts/api_key_revoke.html", context)


def writable_project_for(user: User, public_id: str) -> Project:
    """The project, where `user` may change it.

    Raises:
        Http404: it is not for their eyes.
        PermissionDenied: their role may only look at it.
    """
    project = project_for(user=user, public_id=public_id)
    if not may_write(user, project):
        raise PermissionDenied
    return project


def may_write(user: User, project: Project) -> bool:
    """Whether `user` may change `project` and its keys."""
    return user_may(
        user=user, organisation=project.organisation, permission=Permission.PROJECTS_WRITE
    )


def render_project(request: PersonalRequest, project: Project, form: ApiKeyForm) -> HttpResponse:
    """The project's page, with the form for a new key where that is allowed."""
    context = {
        "project": project,
        "api_keys": project.api_keys.all(),
        "form": form if may_write(request.user, project) else None,
    }
    return render(request, "accounts/project.html", context)
