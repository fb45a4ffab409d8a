"""The header ``Idempotency-Key``: a bare key, or the same key as a quoted string."""

from __future__ import annotations

import re

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from taskapi.protocol import KEY_LENGTH

HEADER = "Idempotency-Key"
#: A string as RFC 9651 writes it: printable ASCII, with a backslash before each quote and each backslash.
QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')

MALFORMED = (
    'Expected a bare key, or a quoted string: printable ASCII between two quotes, with \\" for a quote and \\\\ for a '
    "backslash inside."
)


def idempotency_key(request: Request) -> str | None:
    """The key that the request has, without quotes; None if it has none."""
    given = request.headers.get(HEADER)
    if given is None:
        return None
    key = _unquoted(given) if given.startswith('"') else given
    if not 0 < len(key) <= KEY_LENGTH:
        raise ValidationError({HEADER: [f"Expected 1 to {KEY_LENGTH} characters."]})
    return key


def _unquoted(given: str) -> str:
    quoted = QUOTED.fullmatch(given)
    if quoted is None:
        raise ValidationError({HEADER: [MALFORMED]})
    return re.sub(r"\\(.)", r"\1", quoted[1])
