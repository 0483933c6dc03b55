"""Settings: everything comes from the environment; the README's table names each variable.

`manage.py up` writes what it generated to `$MINDMORE_HOME/env` (secrets) and
`$MINDMORE_HOME/addresses` (its own PostgreSQL and Valkey). Both are read here where the environment
itself does not say, so that every other `manage.py` command sees the same service.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import dj_database_url
from celery.schedules import crontab
from csp.constants import NONE, SELF

from mindmore.environment import Environment
from mindmore.logs import LOGGING as LOGGING

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment.load(default_home=BASE_DIR / ".mindmore")

# --- this installation ---------------------------------------------------------------------------
MINDMORE_HOME = env.home
PRODUCTION = env.production()
LISTENERS = env.listeners()
WEB_HOST = LISTENERS.web_host
WEB_PORT = LISTENERS.web_port
SITE_URL = env.site_url()
SECURE = SITE_URL.startswith("https://")
DEMO = env.demo()

DEBUG = False
SECRET_KEY = env.secret("MINDMORE_SECRET_KEY")
# The site's own name, and what this machine's probes ask by, are always among them.
ALLOWED_HOSTS = [
    *(urlsplit(SITE_URL).hostname or "", "localhost", "127.0.0.1"),
    *env.words("MINDMORE_ALLOWED_HOSTS", []),
]
CSRF_TRUSTED_ORIGINS = [SITE_URL]

# --- the operator, for the privacy policy; production has to state every one of them --------------
SERVICE_NAME = env.text("MINDMORE_SERVICE_NAME", "Mindmore.ai")
LEGAL_ENTITY = env.text(
    "MINDMORE_LEGAL_ENTITY", "" if PRODUCTION else "Demo Operator (a demonstration, no company)"
)
LEGAL_ADDRESS = env.text(
    "MINDMORE_LEGAL_ADDRESS", "" if PRODUCTION else "1 Demo Street, Demo Town (no real address)"
)
DPO_EMAIL = env.text("MINDMORE_DPO_EMAIL", "" if PRODUCTION else "privacy@demo.invalid")
SERVER_LOCATION = env.text(
    "MINDMORE_SERVER_LOCATION", "" if PRODUCTION else "one place: the demo operator's computer"
)
# Divided by semicolons, each a known one (hetzner) or "name | purpose | location"; or `none`.
PROCESSORS = env.words("MINDMORE_PROCESSORS", [] if PRODUCTION else ["none"], divider=";")

# --- the relay ------------------------------------------------------------------------------------
TURN_HOST = env.host("MINDMORE_TURN_HOST", "127.0.0.1")  # what clients are told
TURN_LISTEN_ADDRESSES = LISTENERS.turn_addresses
TURN_PORT = LISTENERS.turn_port
# TLS and DTLS, on both ports; off without a certificate.
TURN_CERTIFICATE, TURN_CERTIFICATE_KEY = env.certificate()
TURN_TLS_PORT = LISTENERS.turn_tls_port
# Balancers there say whose connection they pass on; nobody else is believed.
TURN_PROXY_PROTOCOL_FROM = env.networks("MINDMORE_TURN_PROXY_PROTOCOL_FROM", [])
# One IPv4 address, one IPv6 address, or both.
TURN_RELAY_ADDRESSES = env.words(
    "MINDMORE_TURN_RELAY_ADDRESS",
    list({":" in word: word for word in reversed(TURN_LISTEN_ADDRESSES)}.values()),
)
TURN_RELAY_PORTS = env.relay_ports("MINDMORE_TURN_RELAY_PORTS", (49152, 65535))
TURN_REALM = env.realm("MINDMORE_TURN_REALM", "turn")
# `wide` also takes 0x5000-0x7FFF, which clients of RFC 5766 draw from; RFC 8656 says `strict`.
TURN_CHANNEL_NUMBERS = env.choice("MINDMORE_TURN_CHANNEL_NUMBERS", ("wide", "strict"))
# With a second address and port of this host clients can find out what their NAT does.
TURN_OTHER_ADDRESS = env.address("MINDMORE_TURN_OTHER_ADDRESS", "")
TURN_OTHER_PORT = env.port("MINDMORE_TURN_OTHER_PORT", 3479)
TURN_TCP_RELAY = env.choice("MINDMORE_TURN_TCP_RELAY", ("off", "on")) == "on"
TURN_MOBILITY = env.choice("MINDMORE_TURN_MOBILITY", ("on", "off")) == "on"
# They share the listening addresses and divide the relayed ports.
TURN_PROCESSES = env.count("MINDMORE_TURN_PROCESSES", 1, minimum=1, maximum=64)
# Access tokens of authorization servers (RFC 7635); off without a key.
TURN_OAUTH_KEYS = env.token_keys("MINDMORE_TURN_OAUTH_KEYS")
TURN_OAUTH_SERVER_NAME = env.host("MINDMORE_TURN_OAUTH_SERVER_NAME", TURN_REALM)
TURN_NODE = env.node("MINDMORE_TURN_NODE", "node-1")
# The first signs new credentials, all are accepted: that is how a secret is rotated.
TURN_SECRETS = env.secrets("MINDMORE_TURN_SECRETS")
TURN_NONCE_KEYS = env.secrets("MINDMORE_TURN_NONCE_KEYS")
TURN_ALLOWED_PEERS = env.networks(
    "MINDMORE_TURN_ALLOWED_PEERS", [] if PRODUCTION else ["127.0.0.0/8", "::1/128"]
)
TURN_DENIED_PEERS = env.networks("MINDMORE_TURN_DENIED_PEERS", [])
# Public addresses of this host besides the two above: no peer is reached there.
TURN_OWN_ADDRESSES = env.addresses("MINDMORE_TURN_OWN_ADDRESSES", [])
TURN_HAIRPIN = env.choice("MINDMORE_TURN_HAIRPIN", ("on", "off")) == "on"
# The limits of every project that has none of its own; 0 is no limit.
TURN_PROJECT_ALLOCATIONS_MAX = env.count("MINDMORE_TURN_PROJECT_ALLOCATIONS_MAX", 0)
TURN_PROJECT_BITRATE_KBPS_MAX = env.count("MINDMORE_TURN_PROJECT_BITRATE_KBPS_MAX", 0)
TURN_ON_EXPIRY = env.choice("MINDMORE_TURN_ON_EXPIRY", ("keep", "drain", "cut"))
TURN_MEDIA_ONLY = env.choice("MINDMORE_TURN_MEDIA_ONLY", ("off", "on")) == "on"
TURN_UNAUTHENTICATED_ANSWERS_PER_SECOND = env.count(
    "MINDMORE_TURN_UNAUTHENTICATED_ANSWERS_PER_SECOND", 10, maximum=1000
)
TURN_FAILURES_PER_MINUTE = env.count("MINDMORE_TURN_FAILURES_PER_MINUTE", 30, maximum=1000)
# Metrics and health of the relay; 0: none.
TURN_METRICS_ADDRESS = env.address("MINDMORE_TURN_METRICS_ADDRESS", "127.0.0.1")
TURN_METRICS_PORT = LISTENERS.metrics_port
# A relay that hears nothing of the control channel takes new allocations for as long; 0: for ever.
TURN_CUT_OFF_SECONDS = env.count("MINDMORE_TURN_CUT_OFF_SECONDS", 60)
# Under load the relay rests for so long, so that datagrams gather; 0: never.
TURN_MODERATION_MICROSECONDS = env.count("MINDMORE_TURN_MODERATION_MICROSECONDS", 900, maximum=5000)
TURN_IO_URING = env.choice("MINDMORE_TURN_IO_URING", ("on", "off")) == "on"
TURN_COMPILED = env.choice("MINDMORE_TURN_COMPILED", ("on", "off")) == "on"
TURN_JOURNAL_DIRECTORY = MINDMORE_HOME / "journal"
TURN_FLUSH_INTERVAL_SECONDS = 5
TURN_CREDENTIAL_TTL_SECONDS_MIN = 60
TURN_CREDENTIAL_TTL_SECONDS_MAX = 30 * 24 * 3600
TURN_CREDENTIAL_TTL_SECONDS_DEFAULT = 24 * 3600

# --- applications ---------------------------------------------------------------------------------
INSTALLED_APPS = [
    "mindmore",
    "billing",
    "relay",
    "accounts",
    "privacy",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.forms",
]
MIDDLEWARE = [
    "privacy.middleware.unregistered_cookies_removed",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.middleware.StaffSecondFactorMiddleware",
]
ROOT_URLCONF = "mindmore.urls"
ASGI_APPLICATION = "mindmore.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # never a cookie
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"  # templates/django/forms

# --- data -----------------------------------------------------------------------------------------
DATABASES = {
    "default": dj_database_url.parse(env.database_url() or "postgresql:///mindmore", conn_max_age=0)
}
DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = env.redis_url() or "redis://127.0.0.1:6379/0"
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
}

# --- people ---------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["email", "name"]},
    },
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/dashboard/"
LOGOUT_REDIRECT_URL = "/"

ACCOUNT_ADAPTER = "accounts.adapters.AccountAdapter"
ACCOUNT_FORMS = {
    "add_email": "accounts.forms.AddEmailForm",
    "login": "accounts.forms.LoginForm",
    "reset_password": "accounts.forms.ResetPasswordForm",
    "signup": "accounts.forms.SignupForm",
}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_USER_DISPLAY = "accounts.adapters.user_display"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True  # only in the browser that signed up
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_MAX_EMAIL_ADDRESSES = 3
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if SECURE else "http"

MFA_ADAPTER = "accounts.adapters.SecondFactorAdapter"
MFA_FORMS = {"add_webauthn": "accounts.forms.AddPasskeyForm"}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "Mindmore"
MFA_WEBAUTHN_USER_VERIFICATION = "required"  # PIN or the like: a passkey alone signs in
MFA_TOTP_TOLERANCE = 1  # a clock may be 30 s off
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not SECURE

# --- mail -----------------------------------------------------------------------------------------
# In development mail stays in files, which /outbox/ shows; in production it goes out by SMTP.
OUTBOX_DIRECTORY = MINDMORE_HOME / "outbox"
EMAIL_BACKEND = (
    "django.core.mail.backends.smtp.EmailBackend" if PRODUCTION else "mindmore.outbox.EmailBackend"
)
EMAIL_HOST = env.text("MINDMORE_SMTP_HOST", "localhost")
EMAIL_PORT = env.port("MINDMORE_SMTP_PORT", 587)
EMAIL_HOST_USER = env.text("MINDMORE_SMTP_USER", "")
EMAIL_HOST_PASSWORD = env.text("MINDMORE_SMTP_PASSWORD", "")
EMAIL_USE_TLS = True
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.mail_address("MINDMORE_MAIL_FROM", "Mindmore <no-reply@mindmore.invalid>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL

# --- billing --------------------------------------------------------------------------------------
# By whose clock a month begins and ends; one whose offset from UTC is whole hours.
BILLING_TIME_ZONE = env.text("MINDMORE_BILLING_TIME_ZONE", "Europe/Berlin")

# --- time, language, files ------------------------------------------------------------------------
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Collected in production; in development served from where they are written, as they are now.
STATIC_ROOT = MINDMORE_HOME / "static" if PRODUCTION else None
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not PRODUCTION

# --- what a browser is told -----------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
SECURE_REFERRER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = SECURE
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # asked on this machine, over plain HTTP
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_NAME = "__Host-session" if SECURE else "session"
CSRF_COOKIE_AGE = None  # until the browser is closed
CSRF_COOKIE_NAME = "__Host-csrf" if SECURE else "csrf"

# --- jobs -----------------------------------------------------------------------------------------
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE: dict[str, dict[str, object]] = {
    # By the hour, so that a day's logs go soon after midnight and what was busy soon after that.
    "privacy-purge": {"task": "privacy.tasks.purge", "schedule": crontab(minute=1)},
    # What a worker was too late for, the next run does: it need not pile up in the queue.
    "relay-ship": {"task": "relay.tasks.ship", "schedule": 5, "options": {"expires": 5}},
    "billing-draft": {"task": "billing.tasks.draft", "schedule": 10, "options": {"expires": 10}},
    "relay-partitions": {"task": "relay.tasks.partitions_ahead", "schedule": crontab(minute=20)},
}
