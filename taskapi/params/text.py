"""Text, and what is written as text."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.core.validators import ProhibitNullCharactersValidator
from rest_framework.fields import CharField, EmailField, URLField, UUIDField
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from taskapi.params.base import FieldParameter
from taskapi.params.values import checked_number, checked_text


class StringParameter(FieldParameter):
    """A string as it is, blank or not; a number is taken as its text.

    With a `min_length`, a blank one is refused unless `allow_blank` is set.
    """

    field_class = CharField
    constraints = {"min_length": "minLength", "max_length": "maxLength", "allow_blank": None, "trim_whitespace": None}
    field_defaults = {"allow_blank": True, "trim_whitespace": False}
    schema = {"type": "string"}
    takes: ClassVar[tuple[type, ...]] = (str, int, float)

    def __init__(self, required: bool = True, **options: Any) -> None:
        if options.get("min_length"):
            options.setdefault("allow_blank", False)
        super().__init__(required, **options)
        # checked_text() finds the same, and takes a thousandth of the time.
        twice = (ProhibitNullCharactersValidator, ProhibitSurrogateCharactersValidator)
        self.field.validators = [check for check in self.field.validators if not isinstance(check, twice)]

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str):
            checked_text(value)
        elif isinstance(value, (int, float)):
            checked_number(value)
        return super().to_python(value)

    def type_schema(self) -> dict[str, Any]:
        schema = super().type_schema()
        if not self.field.allow_blank:
            return {"minLength": 1} | schema
        schema.pop("minLength", None)  # JSON Schema has no one word for "blank, or at least so long"
        return schema


class EmailParameter(StringParameter):
    """An email address, without the whitespace around it."""

    field_class = EmailField
    field_defaults = {}
    schema = {"type": "string", "format": "email"}
    takes = (str,)


class URLParameter(StringParameter):
    """A URL of http, https, ftp or ftps, without the whitespace around it."""

    field_class = URLField
    field_defaults = {}
    schema = {"type": "string", "format": "uri"}
    takes = (str,)


class UUIDParameter(FieldParameter):
    """A UUID."""

    field_class = UUIDField
    schema = {"type": "string", "format": "uuid"}
    takes = (str, UUID)
