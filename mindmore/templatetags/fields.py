"""Rendering of form fields: templates/django/forms/field.html."""

from __future__ import annotations

from django import template
from django.forms import BoundField
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def without_placeholder(field: BoundField) -> SafeString:
    """The field's widget; what to enter is said by the label, which does not vanish."""
    return field.as_widget(attrs={"placeholder": False})
