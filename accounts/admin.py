"""The operator's view of accounts. People and keys are made by their owners, not here."""

from __future__ import annotations

import allauth.mfa.admin  # noqa: F401  registers what is taken back below
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.models import ApiKey, Membership, Organisation, Project, User
from accounts.services import api_key_revoke


class MadeElsewhere(admin.ModelAdmin):  # type: ignore[type-arg]
    """Objects that the admin shows and changes, but does not make."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """No: what makes them does more than store a row."""
        return False


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    extra = 0
    raw_id_fields = ("organisation", "user")
    readonly_fields = ("created_at",)


@admin.register(User)
class UserAdmin(MadeElsewhere):
    list_display = ("email", "name", "is_active", "is_staff", "created_at", "last_login")
    list_filter = ("is_active", "is_staff")
    search_fields = ("email", "name")
    ordering = ("email",)
    fields = (
        "email",
        "name",
        "is_sixteen_or_older",
        "age_stated_at",
        "is_active",
        "is_staff",
        "is_superuser",
        "groups",
        "user_permissions",
        "created_at",
        "last_login",
    )
    readonly_fields = ("email", "is_sixteen_or_older", "age_stated_at", "created_at", "last_login")
    filter_horizontal = ("groups", "user_permissions")
    inlines = (MembershipInline,)


@admin.register(Organisation)
class OrganisationAdmin(MadeElsewhere):
    list_display = ("name", "public_id", "created_at")
    search_fields = ("name", "public_id")
    readonly_fields = ("public_id", "created_at")
    inlines = (MembershipInline,)


@admin.register(Project)
class ProjectAdmin(MadeElsewhere):
    list_display = ("name", "organisation", "public_id", "created_at")
    list_select_related = ("organisation",)
    search_fields = ("name", "public_id", "organisation__name")
    readonly_fields = ("organisation", "public_id", "created_at")


@admin.register(ApiKey)
class ApiKeyAdmin(MadeElsewhere):
    list_display = ("prefix", "name", "project", "created_at", "revoked_at")
    list_select_related = ("project",)
    list_filter = ("revoked_at",)
    search_fields = ("prefix", "name", "project__public_id")
    fields = readonly_fields = ("project", "name", "prefix", "created_at", "revoked_at")
    actions = ("revoke",)

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Refuse the keys from now on."""
        for api_key in queryset:
            api_key_revoke(api_key=api_key)


admin.site.unregister(Authenticator)


@admin.register(Authenticator)
class AuthenticatorAdmin(MadeElsewhere):
    """Second factors, without their secrets: to take one away from a person who lost it."""

    list_display = ("user", "type", "created_at", "last_used_at")
    list_filter = ("type",)
    search_fields = ("user__email",)
    fields = readonly_fields = ("user", "type", "created_at", "last_used_at")
