"""``{% load taskapi %}``: the tags for templates."""

from __future__ import annotations

from typing import Any

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

SCRIPT = "django-task-api.min.js"


@register.simple_tag(takes_context=True)
def task_script(context: Any) -> SafeString:
    """The script, which gives the page `TaskAPI`, and the CSRF token that it sends.

    The token stands in a meta tag, so it is found with CSRF_USE_SESSIONS and CSRF_COOKIE_HTTPONLY as well. Rendering it
    sets the CSRF cookie. If the project has a Content Security Policy with nonces, the script gets one.
    """
    # `csrf_token` is in the context of each template that is rendered for a request. It is lazy: this asks for it.
    token = str(context.get("csrf_token") or "")
    meta = format_html('<meta name="csrf-token" content="{}">\n', token) if token not in ("", "NOTPROVIDED") else ""
    # Django 6 puts the nonce into the context, django-csp into the request.
    nonce = context.get("csp_nonce") or getattr(context.get("request"), "csp_nonce", None)
    allowed = format_html(' nonce="{}"', nonce) if nonce else ""
    return format_html('{}<script src="{}"{}></script>', meta, static(SCRIPT), allowed)
