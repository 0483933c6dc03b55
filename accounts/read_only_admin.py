"""Pages of the admin for what the software makes: to be read, not changed."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest


class ReadOnlyMixin:
    """For pages and inlines alike."""

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """No: the software makes them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """No: they are what happened."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """No: retention deletes them."""
        return False


class ReadOnlyAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Objects that the software makes; nobody edits them."""
