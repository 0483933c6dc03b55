"""The operator's view of the relay's books: to be read, not changed.

The connection logs are not here: who reads addresses does so in the pages of the project.
"""

from __future__ import annotations

from django.contrib import admin

from accounts.read_only_admin import ReadOnlyAdmin
from relay.models import QuarantinedRecord, UsageHour


@admin.register(UsageHour)
class UsageHourAdmin(ReadOnlyAdmin):
    list_display = ("project", "hour", "client_sent_bytes", "client_received_bytes", "is_rated")
    list_filter = ("is_rated",)
    list_select_related = ("project",)
    date_hierarchy = "hour"
    search_fields = ("project__public_id", "project__name")
    ordering = ("-hour", "project")


@admin.register(QuarantinedRecord)
class QuarantinedRecordAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "reason", "node", "boot")
    list_filter = ("reason", "node")
    fields = ("received_at", "reason", "node", "boot", "payload")
