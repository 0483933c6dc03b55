from __future__ import annotations

from django.urls import path

from privacy import views

app_name = "privacy"
urlpatterns = [
    path("privacy", views.policy, name="policy"),
    path("privacy/versions/<int:number>", views.policy_version, name="policy_version"),
]
