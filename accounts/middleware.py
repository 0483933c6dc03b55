"""Staff use a second factor, in every session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from allauth.account.authentication import get_authentication_records
from allauth.mfa.models import Authenticator
from allauth.mfa.utils import is_mfa_enabled
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin
from django.utils.http import urlencode

from accounts.models import User

# What happens to their data everybody may read, at any time.
PUBLIC: Final = frozenset({"privacy:policy", "privacy:policy_version"})
PROVING: Final = PUBLIC | {"account_logout", "mfa_reauthenticate", "mfa_reauthenticate_webauthn"}
# Only while there is no second factor yet: else a password alone would be enough to add one.
ENROLLING: Final = PROVING | {
    "account_confirm_email",
    "account_reauthenticate",
    "mfa_activate_totp",
    "mfa_add_webauthn",
    "mfa_index",
}


class StaffSecondFactorMiddleware(MiddlewareMixin):
    """Staff reach but the policy and enrolment until this session has used a second factor.

    A passkey that signed the person in counts: it is bound to the device and asks for its PIN or
    the like (`MFA_WEBAUTHN_USER_VERIFICATION`).
    """

    def process_view(
        self,
        request: HttpRequest,
        view: Callable[..., HttpResponse],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> HttpResponse | None:
        """Answer with a redirect where the person must prove or set up a second factor first."""
        user = request.user
        if not isinstance(user, User) or not user.is_staff or second_factor_is_used(request, user):
            return None
        is_enrolled = is_mfa_enabled(user)
        match = request.resolver_match
        if match is not None and match.view_name in (PROVING if is_enrolled else ENROLLING):
            return None
        address = proof_address(user) if is_enrolled else reverse("mfa_index")
        if request.method == "GET":
            address += "?" + urlencode({REDIRECT_FIELD_NAME: request.get_full_path()})
        return HttpResponseRedirect(address)


def second_factor_is_used(request: HttpRequest, user: User) -> bool:
    """Whether this session has proven a second factor of `user`."""
    records = get_authentication_records(request, user)
    return any(record.get("method") == "mfa" for record in records)


def proof_address(user: User) -> str:
    """Where `user` proves a second factor that is already set up."""
    has_app = is_mfa_enabled(user, [Authenticator.Type.TOTP])
    return reverse("mfa_reauthenticate" if has_app else "mfa_reauthenticate_webauthn")
