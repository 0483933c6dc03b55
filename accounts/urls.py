"""The addresses of accounts; signing up and in is allauth's, under /accounts/."""

from __future__ import annotations

from django.urls import path

from accounts import views

app_name = "accounts"

urlpatterns = [
    path("accounts/signup/", views.SignupView.as_view(), name="signup"),  # before allauth's
    path("account/", views.profile, name="profile"),
    path("projects/", views.project_list, name="projects"),
    path("projects/<str:public_id>/", views.project_detail, name="project"),
    path("projects/<str:public_id>/keys/", views.api_key_new, name="api_key_new"),
    path("projects/<str:public_id>/keys/<slug:prefix>/", views.api_key_shown, name="api_key"),
    path(
        "projects/<str:public_id>/keys/<slug:prefix>/revoke/",
        views.api_key_revocation,
        name="api_key_revoke",
    ),
]
