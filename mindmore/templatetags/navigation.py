"""The links of the page's frame."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag(takes_context=True)
def nav_link(
    context: dict[str, Any], address: str, label: str, also: str | None = None
) -> SafeString:
    """A link to a section of the site, marked as current on all of its pages.

    Args:
        address: the section's first page; the others' addresses begin with it.
        also: what further pages' addresses begin with.
    """
    request = context.get("request")  # an error page is rendered without one
    starts = (address, also or address)
    is_current = request is not None and request.path.startswith(starts)
    current = format_html(' aria-current="{}"', "page") if is_current else ""
    return format_html('<a href="{}"{}>{}</a>', address, current, label)
