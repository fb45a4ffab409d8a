"""Rows of the project's own models."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import connections, models, router
from django.db.models.manager import BaseManager
from rest_framework.exceptions import ValidationError

from taskapi.exceptions import TaskError
from taskapi.params.base import Parameter, nullable
from taskapi.params.context import current_context
from taskapi.params.values import checked_text, echo, null_refused

READ_TOGETHER = 500  # rows that are looked up at once: databases limit the parameters of a statement

KEYS = (str, int, float, Decimal, UUID, dt.date)  # the types of values by which a row may be named

#: JSON Schema of the values of a field; of two that fit, the first.
SCHEMAS: tuple[tuple[type[models.Field[Any, Any]], dict[str, Any]], ...] = (
    (models.UUIDField, {"type": "string", "format": "uuid"}),
    (models.IntegerField, {"type": "integer"}),
    (models.FloatField, {"type": "number"}),
    (models.DateTimeField, {"type": "string", "format": "date-time"}),
    (models.DateField, {"type": "string", "format": "date"}),
    (models.EmailField, {"type": "string", "format": "email"}),
    (models.URLField, {"type": "string", "format": "uri"}),
)


class ModelParameter(Parameter):
    """A row of a model, which JSON has by the value of one of its fields. `run` gets the instance.

    `queryset` is a model, a manager or a queryset, or a function that returns one for a user (None: nobody). What is
    not in it is not found. `field` names the field: "pk", or one whose values are unique.
    """

    def __init__(self, queryset: Any, field: str = "pk", required: bool = True, **options: Any) -> None:
        super().__init__(required, **options)
        if not (callable(queryset) or isinstance(queryset, (models.QuerySet, BaseManager))):
            raise TypeError(f"ModelParameter takes a model, a queryset or a function of the user, not {queryset!r}.")
        if isinstance(queryset, models.QuerySet) and queryset.query.is_sliced:
            raise TypeError("ModelParameter takes a queryset that can be filtered, not a slice of one.")
        self.queryset = queryset
        self.field = field

    def to_python(self, value: Any) -> Any:
        return self.reader([value])(value)

    def reader(self, values: Iterable[Any]) -> Callable[[Any], Any]:
        """As of each parameter. The rows are looked up here, with one query for many of them."""
        rows = self._rows()
        return partial(self._read, rows.model, self._find(rows, values))

    def to_json(self, value: Any) -> Any:
        if value is None:
            return self._null()
        model = type(value) if isinstance(value, models.Model) else self._rows().model
        key = self._key(model, value)
        return key if isinstance(key, (int, float, str)) else str(key)

    def json_schema(self) -> dict[str, Any]:
        schema = self._key_schema()
        return (nullable(schema) if self.allow_null else schema) | super().json_schema()

    def problem(self) -> str:
        """What is wrong with the field, in a few words; "" if nothing is. Raises FieldDoesNotExist."""
        try:
            model = self._rows().model
        except Exception:  # noqa: BLE001 - the project's own function, which may need a user
            return ""
        meta, field = model._meta, self._key_field(model)  # noqa: SLF001 - Django's public name for it
        if field.column is None:
            return f"the {self.field} of {meta.label} has several columns"
        constraints = [constraint.fields for constraint in meta.constraints if hasattr(constraint, "fields")]
        is_unique = getattr(field, "unique", False) or (field.name,) in map(tuple, constraints)
        return "" if is_unique else f"several rows of {meta.label} may have the same {self.field}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name()}, field={self.field!r})"  # to show a queryset is to query it

    # Rows

    def _rows(self) -> models.QuerySet[Any]:
        """What may be found for the user of the conversion; read where it is written: a replica may lag."""
        source = self.queryset
        if not (_is_model(source) or isinstance(source, (models.QuerySet, BaseManager))):
            source = source(current_context().user)
        rows: models.QuerySet[Any] = (source._default_manager if _is_model(source) else source).all()  # noqa: SLF001 - Django's public name for it
        return rows if rows._db is not None else rows.using(router.db_for_write(rows.model))  # type: ignore[attr-defined]  # noqa: SLF001 - Django's own

    def _find(self, rows: models.QuerySet[Any], values: Iterable[Any]) -> dict[Any, Any]:
        """The rows by their keys; of values that are no keys there is none."""
        keys = list({key: None for value in values if (key := self._key_or_none(rows, value)) is not None})
        field, found = self._key_field(rows.model), dict[Any, Any]()
        for first in range(0, len(keys), READ_TOGETHER):
            for row in rows.filter(**{f"{field.name}__in": keys[first : first + READ_TOGETHER]}):
                key = getattr(row, field.attname)
                if key in found and found[key].pk != row.pk:
                    raise ValidationError(f"There is more than one {_noun(row)} with the {self.field} {echo(key)}.")
                found[key] = row
        return found

    def _read(self, model: type[models.Model], found: Mapping[Any, Any], value: Any) -> Any:
        if value is None:
            return self._null()
        try:
            row = found.get(self._key(model, value))
        except DjangoValidationError:  # it can be no value of the field
            row = None
        if row is not None:
            return row
        what = f"{_noun(model)} with the {self.field} {echo(getattr(value, 'pk', value))}"
        if current_context().run is not None:
            raise TaskError(f"The {what}, which is an input of this run, is not there any more.")
        raise ValidationError(f"There is no {what}.", code="not_found")

    def _null(self) -> None:
        if not self.allow_null:
            raise null_refused()

    # Keys

    def _key(self, model: type[models.Model], value: Any) -> Any:
        """The value of the field that a caller means. Raises Django's ValidationError if it can be none."""
        field = self._key_field(model)
        if isinstance(value, models.Model):
            if not isinstance(value, model):
                raise ValidationError(f"Expected a {_noun(model)}. Got a {_noun(value)}.")
            return getattr(value, field.attname)
        if isinstance(value, bool) or not isinstance(value, KEYS):
            raise ValidationError(f"Expected the {self.field} of a {_noun(model)}. Got {type(value).__name__}.")
        if isinstance(value, str):
            checked_text(value)
        if isinstance(value, float) and isinstance(_target(field), models.IntegerField):
            raise DjangoValidationError("A key has no fraction.")
        return field.to_python(value)

    def _key_or_none(self, rows: models.QuerySet[Any], value: Any) -> Any:
        try:
            key = self._key(rows.model, value)
        except (ValidationError, DjangoValidationError):
            return None
        return key if _fits(rows, self._key_field(rows.model), key) else None

    def _key_field(self, model: type[models.Model]) -> Any:
        meta = model._meta  # noqa: SLF001 - Django's public name for it
        return meta.pk if self.field == "pk" else meta.get_field(self.field)

    def _key_schema(self) -> dict[str, Any]:
        try:
            model = self._rows().model
        except Exception:  # noqa: BLE001 - the project's own function, which may need a user
            return {"type": ["integer", "string"]}
        kind = _target(self._key_field(model))
        return dict(next((schema for field, schema in SCHEMAS if isinstance(kind, field)), {"type": "string"}))

    def _name(self) -> str:
        model = getattr(self.queryset, "model", self.queryset)
        return getattr(model, "__name__", type(model).__name__)


def _is_model(source: Any) -> bool:
    return isinstance(source, type) and issubclass(source, models.Model)


def _noun(model: Any) -> str:
    return str(model._meta.verbose_name)  # noqa: SLF001 - Django's public name for it


def _target(field: Any) -> Any:
    """The field that has the values: a primary key may be a reference to the one of a parent."""
    while field.is_relation:
        field = field.target_field
    return field


def _fits(rows: models.QuerySet[Any], field: Any, key: Any) -> bool:
    """Whether the database takes the key in a query: it raises for an integer that it has no column for."""
    if not isinstance(key, int):
        return True
    bounds: tuple[int | None, int | None] = connections[rows.db].ops.integer_field_range(
        _target(field).get_internal_type()
    )
    lowest, highest = bounds
    return (lowest is None or key >= lowest) and (highest is None or key <= highest) and abs(key) < 2**63
