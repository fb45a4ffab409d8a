"""Numbers. NaN, infinities and what is past a double's range are refused."""

from __future__ import annotations

import decimal
import sys
from contextlib import suppress
from numbers import Integral, Real
from typing import Any, ClassVar

from rest_framework.fields import DecimalField, FloatField, IntegerField

from taskapi.params.base import FieldParameter
from taskapi.params.values import LARGEST, checked_number

MAX_PLACES = sys.float_info.max_10_exp  # digits of a Decimal before the point, and after it


class _Integer(IntegerField):
    """IntegerField that also takes 1e20, which is how JavaScript writes some integers."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, float) and data.is_integer():
            data = int(data)
        number = super().to_internal_value(data)
        if not -LARGEST <= number <= LARGEST:
            self.fail("invalid")
        return number


class _Float(FloatField):
    """FloatField that refuses NaN and infinities; REST framework's own does from 3.18 on."""

    def to_internal_value(self, data: Any) -> float:
        try:
            return checked_number(super().to_internal_value(data))
        except OverflowError:
            self.fail("invalid")


class _Number(_Float):
    """A float field in which an int stays an int, as a string too."""

    def to_internal_value(self, data: Any) -> float:
        number = super().to_internal_value(data)
        if isinstance(data, Integral):
            return int(data)
        if isinstance(data, str):
            with suppress(ValueError):
                return int(data)
            return int(number) if number.is_integer() else number
        return number

    def to_representation(self, value: float) -> Any:
        return value


class _NumericParameter(FieldParameter):
    constraints = {"min_value": "minimum", "max_value": "maximum"}
    takes = (Real, decimal.Decimal, str)
    native: ClassVar[tuple[type, ...]]  # need not be converted: the fast path for a list of 100,000 numbers

    def to_python(self, value: Any) -> Any:
        if type(value) in self.native and -LARGEST <= value <= LARGEST:
            if self.field.validators:
                self.field.run_validators(value)
            return value
        return super().to_python(value)


class NumberParameter(_NumericParameter):
    """An int or a float; ``"6"`` is 6, and ``"6.5"`` is 6.5."""

    field_class = _Number
    schema = {"type": "number"}
    native = (int, float)


class IntParameter(_NumericParameter):
    """An int; ``"6"`` and 6.0 are 6.

    With `as_string` it is a string in JSON. Past 2**53 it has to be: JavaScript would read another number.
    """

    field_class = _Integer
    schema = {"type": "integer"}
    native = (int,)
    as_string: bool = False

    def __init__(self, required: bool = True, *, as_string: bool = False, **options: Any) -> None:
        super().__init__(required, **options)
        self.as_string = as_string

    def to_json(self, value: Any) -> Any:
        number = super().to_json(value)
        return str(number) if self.as_string and number is not None else number

    def type_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^-?[0-9]+$"} if self.as_string else super().type_schema()


class FloatParameter(_NumericParameter):
    """A float; ``"6.5"`` is 6.5, and 6 is 6.0."""

    field_class = _Float
    schema = {"type": "number"}
    native = (float,)


class _Decimal(DecimalField):
    """DecimalField whose only bounds keep a number such as 1E+999999999 from filling the memory."""

    coerce_to_string = True

    def __init__(self, max_digits: int | None = None, decimal_places: int | None = None, **options: Any) -> None:
        super().__init__(max_digits, decimal_places, **options)

    def to_internal_value(self, data: Any) -> decimal.Decimal:
        with decimal.localcontext(prec=2 * MAX_PLACES):  # quantize() raises InvalidOperation past the precision
            return super().to_internal_value(data)

    def validate_precision(self, value: decimal.Decimal) -> decimal.Decimal:
        exponent = value.as_tuple().exponent
        if value.adjusted() > MAX_PLACES or not isinstance(exponent, int) or exponent < -MAX_PLACES:
            self.fail("max_string_length")
        return super().validate_precision(value)

    def to_representation(self, value: decimal.Decimal) -> str:
        return f"{value:f}"


class DecimalParameter(FieldParameter):
    """A Decimal; a string in JSON, because JSON's numbers are read as binary."""

    field_class = _Decimal
    constraints = {"max_digits": None, "decimal_places": None, "min_value": None, "max_value": None}
    schema = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
    takes = (decimal.Decimal, int, float, str)

    def to_python(self, value: Any) -> Any:
        if isinstance(value, int):
            checked_number(value)  # before the field calls str(), which raises ValueError for a longer one
        return super().to_python(value)
