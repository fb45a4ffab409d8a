"""Refusals as problem details (RFC 9457), for clients that prefer them, and what a throttled client is told."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http.client import responses
from math import ceil
from typing import Any

from rest_framework.throttling import BaseThrottle

from taskapi.params.values import flattened

PROBLEM = "application/problem+json"
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


def problem(data: Any, status: int) -> dict[str, Any]:
    """The problem details of a refusal: its fields stay as they are, beside those of the RFC.

    A field that is called like one of the RFC's, such as a query's `status`, is in the `detail` sentence alone.
    """
    fields = data if isinstance(data, dict) else {"errors": data}
    detail = fields["detail"] if isinstance(fields.get("detail"), str) else "; ".join(flattened(data))
    title = responses.get(status, "Refused")  # a class of the project may answer with a status of its own
    return {**fields, "type": "about:blank", "title": title, "status": status, "detail": detail}


def rate_limit_fields(refused: Iterable[tuple[BaseThrottle, float | None]]) -> dict[str, str]:
    """The `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers) of throttles that refused, each with its wait."""
    limits, policies = [], []
    for throttle, wait in refused:
        name = _quoted(getattr(throttle, "scope", None) or type(throttle).__name__)
        limits.append(f"{name};r=0" if wait is None else f"{name};r=0;t={ceil(wait)}")
        quota, window = getattr(throttle, "num_requests", None), getattr(throttle, "duration", None)
        if quota is not None and window is not None:  # a throttle of the project's own may have neither
            policies.append(f"{name};q={quota};w={ceil(window)}")
    fields = {"RateLimit": ", ".join(limits), "RateLimit-Policy": ", ".join(policies)}
    return {name: value for name, value in fields.items() if value}


def _quoted(name: str) -> str:
    """The name as a string of RFC 9651, which knows ASCII alone."""
    return f'"{_UNQUOTABLE.sub("_", name)}"'
