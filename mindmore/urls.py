"""Every address of the service; each app brings its own."""

from __future__ import annotations

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from mindmore import views
from mindmore.api import api
from mindmore.not_allowed import not_allowed_pages

# The admin's own sign-in knows neither second factors nor rate limits.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

handler500 = "mindmore.views.failed"

pages: list[URLPattern | URLResolver] = [
    path("", views.landing, name="landing"),
    path("", include("accounts.urls")),
    path("", include("billing.urls")),
    path("", include("privacy.urls")),
    path("", include("relay.urls")),
    path("healthz", views.healthz, name="healthz"),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("outbox/", views.outbox, name="outbox"),
    path("outbox/<slug:name>/", views.outbox_mail, name="outbox_mail"),
]
not_allowed_pages(pages)

urlpatterns = [path("api/v1/", api.urls), *pages]
