"""What several checks ask of a value."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from django.conf import settings as django_settings


def value_of(name: str) -> Any:
    return getattr(django_settings, f"TASK_API_{name}", None)


def is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def is_duration(value: Any) -> bool:
    return is_seconds(value.total_seconds() if isinstance(value, timedelta) else value)
