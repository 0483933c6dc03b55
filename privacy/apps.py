from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class PrivacyConfig(AppConfig):
    name = "privacy"

    def ready(self) -> None:
        """Read what every app declares in `personal_data.py`, and its system checks."""
        autodiscover_modules("personal_data")
        autodiscover_modules("checks")
