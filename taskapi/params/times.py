"""Dates and times: ISO 8601 in JSON, whatever formats the project has set for its serializers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from rest_framework import ISO_8601
from rest_framework.fields import DateField, DateTimeField

from taskapi.params.base import FieldParameter


class _Date(DateField):
    format = ISO_8601

    def __init__(self, input_formats: Sequence[str] = (), **options: Any) -> None:
        super().__init__(input_formats=[ISO_8601, *input_formats], **options)


class _DateTime(DateTimeField):
    """DateTimeField that writes UTC: one instant has one text, whatever time zone is active."""

    def __init__(self, input_formats: Sequence[str] = (), **options: Any) -> None:
        super().__init__(input_formats=[ISO_8601, *input_formats], **options)

    def enforce_timezone(self, value: dt.datetime) -> dt.datetime:
        try:
            return super().enforce_timezone(value)
        except OverflowError:  # the first and the last hours of the calendar
            self.fail("overflow")

    def to_representation(self, value: dt.datetime) -> str:
        if value.tzinfo is None:
            return value.isoformat()
        try:
            return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        except OverflowError:
            self.fail("overflow")


class DateParameter(FieldParameter):
    """A date."""

    field_class = _Date
    constraints = {"input_formats": None}
    schema = {"type": "string", "format": "date"}
    takes = (object, bool)  # the field looks at it


class DateTimeParameter(FieldParameter):
    """A datetime, aware if USE_TZ is on; a text without an offset is in the current time zone."""

    field_class = _DateTime
    constraints = {"input_formats": None, "default_timezone": None}
    schema = {"type": "string", "format": "date-time"}
    takes = (object, bool)  # the field looks at it
