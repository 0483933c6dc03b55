"""The addresses of the relay's pages."""

from __future__ import annotations

from django.urls import path

from relay import views

app_name = "relay"

urlpatterns = [path("projects/<str:public_id>/sessions/", views.sessions, name="sessions")]
