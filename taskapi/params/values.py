"""JSON values, and what is wrong with one: flat sentences, each with its place in front."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as DjangoValidationError
from django.utils.translation import gettext as _
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.fields import get_error_detail

from taskapi.protocol import MAX_DEPTH

logger = logging.getLogger(__name__)

LARGEST = sys.float_info.max  # JavaScript reads what is beyond it as Infinity (RFC 8259, section 6)
EXACT = 2**53  # JavaScript reads each integer up to here as itself
MAX_SENTENCES = 20  # about one value: 100,000 wrong numbers are not answered by as many sentences
NO_NAME = "non_field_errors"  # REST framework's name for what is wrong with the inputs together
MAX_ECHO = 60  # characters of the caller's own text in a sentence

# What Python raises about a value of the wrong kind. So a custom parameter may raise it without meaning to.
UNFIT = (
    ValidationError,
    DjangoValidationError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
)


class TooDeep(ValidationError):
    """Raised at the bottom of a value that is nested too deeply. It is said without its place, a line of 64 places."""

    def __init__(self) -> None:
        super().__init__(f"Lists and dictionaries may be nested {MAX_DEPTH} deep at most.", code="too_deep")


def null_refused() -> ValidationError:
    return ValidationError(_("This field may not be null."), code="null")


def json_value(value: Any, depth: int = 0) -> Any:
    """A copy of the value as JSON has it: str, int, float, bool, None, list, and dict with str keys."""
    if isinstance(value, str):
        return checked_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return checked_number(value)
    if depth == MAX_DEPTH:
        raise TooDeep
    if isinstance(value, (list, tuple)):
        return convert_items(partial(json_value, depth=depth + 1), value)
    if isinstance(value, dict):
        return convert_members(partial(json_value, depth=depth + 1), value)
    raise ValidationError(f"A value of type {type(value).__name__} is not JSON.")


def checked_text(text: str) -> str:
    """Return the text, if PostgreSQL can store it and UTF-8 has bytes for it; else ValidationError."""
    if "\0" in text:
        raise ValidationError(_("Null characters are not allowed."), code="null_characters_not_allowed")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = _("Surrogate characters are not allowed: U+{code_point:X}.")
            raise ValidationError(message.format(code_point=ord(text[error.start]))) from None
    return text


def checked_number(number: float) -> float:
    """Return the number, if every JSON reader can read it: no NaN, no infinity, nothing past a double's range."""
    if -LARGEST <= number <= LARGEST:  # false for NaN, too
        return number
    raise ValidationError(_("A valid number is required."))


def exact(value: Any) -> Any:
    """Return the JSON value, if JavaScript, whose numbers are doubles, reads its integers right."""
    if isinstance(value, list):
        return value if _are_exact(value) else convert_items(exact, value)
    if isinstance(value, dict):
        return value if _are_exact(value.values()) else convert_members(exact, value)
    if type(value) is int and not -EXACT <= value <= EXACT:
        raise ValidationError(
            f"{echo(value)} is past 2**53, so that JavaScript would read another number. "
            "Declare it as IntParameter(as_string=True), or return it as a string."
        )
    return value


def _are_exact(values: Iterable[Any]) -> bool:
    """Whether none of them has to be looked into: the fast path for a list of 100,000 numbers."""
    for value in values:
        kind = type(value)
        if (kind is int and not -EXACT <= value <= EXACT) or kind is list or kind is dict:
            return False
    return True


def convert_items(convert: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Convert each item of a list; one ValidationError has all that is wrong."""
    return _convert_each(convert, enumerate(items), "Item {}")


def convert_members(convert: Callable[[Any], Any], members: Mapping[Any, Any]) -> dict[str, Any]:
    """Convert each value of an object, whose keys have to be strings; one ValidationError has all that is wrong."""
    for key in members:
        if not isinstance(key, str):
            raise ValidationError(f"The keys of a JSON object are strings, not of type {type(key).__name__}.")
        checked_text(key)
    return dict(zip(members, _convert_each(convert, members.items(), 'Key "{}"'), strict=True))


def _convert_each(convert: Callable[[Any], Any], values: Iterable[tuple[Any, Any]], place: str) -> list[Any]:
    converted: list[Any] = []
    wrong: list[ErrorDetail] = []
    for where, value in values:
        try:
            converted.append(convert(value))
        except TooDeep:
            raise
        except UNFIT as error:
            wrong += sentences(error, f"{place.format(echo(where))}: ")
            if len(wrong) > MAX_SENTENCES:
                wrong[MAX_SENTENCES:] = [ErrorDetail("There are more errors than these.", "invalid")]
                break
    if wrong:
        raise ValidationError(wrong)
    return converted


def sentences(error: Exception, place: str = "") -> list[ErrorDetail]:
    """What an UNFIT error says is wrong, as a flat list, each sentence with the place before it."""
    if isinstance(error, ValidationError):
        return list(flattened(error.detail, place))
    if isinstance(error, DjangoValidationError):
        return list(flattened(get_error_detail(error), place))
    logger.info("A parameter did not expect a value, which is refused: %s", error, exc_info=error)
    return [ErrorDetail(f"{place}This value is not valid.", "invalid")]


def errors_by_name(error: ValidationError | DjangoValidationError) -> dict[str, list[ErrorDetail]]:
    """What a ValidationError says, as ``{name: [sentence, …]}``; what has no name stands under `non_field_errors`."""
    detail: Any = error.detail if isinstance(error, ValidationError) else get_error_detail(error)
    if not isinstance(detail, Mapping):
        detail = {NO_NAME: detail}
    named: dict[str, list[ErrorDetail]] = {}
    for name, said in detail.items():
        named.setdefault(NO_NAME if name == NON_FIELD_ERRORS else str(name), []).extend(flattened(said, ""))
    return named


def flattened(detail: Any, place: str = "") -> Iterator[ErrorDetail]:
    """What is wrong, each in a sentence that begins with the names of the fields at fault."""
    if isinstance(detail, dict):
        for key, inner in detail.items():
            yield from flattened(inner, f"{place}{echo(key)}: ")
    elif isinstance(detail, list):
        for inner in detail:
            yield from flattened(inner, place)
    else:
        yield ErrorDetail(f"{place}{detail}", getattr(detail, "code", "invalid"))


def echo(value: object) -> str:
    """The caller's own value as a sentence quotes it: short, and without what UTF-8 has no bytes for."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= MAX_ECHO else f"{text[:MAX_ECHO]}…"
    return text.encode(errors="replace").decode()
