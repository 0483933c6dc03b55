"""Where django-allauth asks for our way of doing things."""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import Any, ClassVar

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context as request_context
from allauth.core.internal import ratelimit
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.http import HttpRequest

from accounts.mail import MailUnsentError
from accounts.models import User
from accounts.sealing import key_derive, sealer

logger = logging.getLogger(__name__)

CLIENT_LABEL = b"mindmore: client of a rate limit"
SECOND_FACTOR_LABEL = b"mindmore: secrets of second factors"


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Sign-up, sign-in and their mail."""

    error_messages: ClassVar[dict[str, Any]] = {
        **DefaultAccountAdapter.error_messages,
        "too_many_login_attempts": "Too many failed attempts. Wait five minutes, then try again.",
    }

    def get_client_ip(self, request: HttpRequest) -> str:
        """What rate limits count by: the same for the same address, but not the address.

        allauth puts it into keys of the cache, where addresses have no business.
        """
        address: str = super().get_client_ip(request)
        key = key_derive(CLIENT_LABEL, settings.SECRET_KEY)
        return hmac.digest(key, address.encode(), hashlib.sha256).hex()

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send one mail, without the address and browser that allauth would tell in it.

        Raises:
            MailUnsentError: it is not on its way, and was not counted: it may be asked for again.
        """
        told = {name: value for name, value in context.items() if name not in {"ip", "user_agent"}}
        try:
            super().send_mail(template_prefix, email, {**told, "site_url": settings.SITE_URL})
        except OSError as error:  # smtplib's are of this kind too
            logger.error(  # without its message, which may hold the address
                "cannot send mail to %s:%s (%s): set MINDMORE_SMTP_HOST, MINDMORE_SMTP_PORT, "
                "MINDMORE_SMTP_USER and MINDMORE_SMTP_PASSWORD to a mail server that takes it",
                settings.EMAIL_HOST,
                settings.EMAIL_PORT,
                type(error).__name__,
            )
            ratelimit.clear(
                request_context.request,
                app="allauth.account",
                action="confirm_email",
                key=email.lower(),
            )
            raise MailUnsentError from error


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """TOTP, recovery codes and passkeys."""

    def encrypt(self, text: str) -> str:
        """Keep secrets of second factors so that a copy of the database does not hold them."""
        return sealer(SECOND_FACTOR_LABEL).encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """The counterpart; keys retired by `SECRET_KEY_FALLBACKS` still open what they closed."""
        return sealer(SECOND_FACTOR_LABEL).decrypt(encrypted_text.encode()).decode()

    def generate_authenticator_name(self, user: User, type: Authenticator.Type) -> str:
        """What a new one is called until its owner says otherwise."""
        count = Authenticator.objects.filter(user=user, type=type).count()
        return f"Passkey {count + 1}" if count else "Passkey"

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """The service as a passkey dialogue names it, bound to the host name in the address."""
        entity: dict[str, str] = super().get_public_key_credential_rp_entity()
        return {**entity, "name": "Mindmore"}


def user_display(user: User) -> str:
    """How allauth's pages, mails and passkey dialogues call a person."""
    return user.name or user.email
