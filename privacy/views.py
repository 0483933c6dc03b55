"""The pages of the privacy policy, for everybody."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from privacy.models import PolicyVersion
from privacy.selectors import policy_current, policy_versions


@require_safe
def policy(request: HttpRequest) -> HttpResponse:
    """The version in force."""
    version = policy_current()
    if version is None:
        raise Http404("no policy is published yet: run `manage.py publish_policy`")
    return _page(request, version)


@require_safe
def policy_version(request: HttpRequest, number: int) -> HttpResponse:
    """Any version that was ever published."""
    return _page(request, get_object_or_404(PolicyVersion, number=number))


def _page(request: HttpRequest, version: PolicyVersion) -> HttpResponse:
    versions = policy_versions().only("number", "published_at")
    context = {"version": version, "versions": versions, "current": policy_current()}
    return render(request, "privacy/policy.html", context)
