"""What each parameter takes, gives, refuses, and how it describes itself."""

import datetime as dt
import decimal
import json
import math
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from types import MappingProxyType
from uuid import UUID

import pytest
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import models
from django.test import override_settings
from django.utils import timezone, translation
from django.utils.functional import lazystr
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rest_framework.exceptions import ErrorDetail, ValidationError

from taskapi.params import (
    BooleanParameter,
    ChoiceParameter,
    ConversionContext,
    DateParameter,
    DateTimeParameter,
    DecimalParameter,
    DictParameter,
    EmailParameter,
    FloatParameter,
    IntParameter,
    JSONParameter,
    ListParameter,
    NumberParameter,
    Parameter,
    StringParameter,
    URLParameter,
    UUIDParameter,
    current_context,
    dump_outputs,
    dump_values,
    object_schema,
    parse_inputs,
)
from taskapi.params.values import LARGEST, MAX_DEPTH, MAX_SENTENCES

NAN, INF = math.nan, math.inf
UTC = dt.UTC
ID = UUID("12345678-1234-5678-1234-567812345678")


class Colour(models.TextChoices):
    RED = "red", "Red"
    BLUE = "blue", "Blue"


class Size(Enum):
    SMALL = 1
    LARGE = 2


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return (self.x, self.y) == (other.x, other.y)

    __hash__ = None


class PointParameter(Parameter):
    """A custom parameter as a project would write one: nothing but the two methods."""

    def to_python(self, value):
        x, y = value
        return Point(x, y)

    def to_json(self, value):
        return [value.x, value.y]


# One of each type, as a task would declare it.
EVERY_TYPE = [
    Parameter(),
    StringParameter(),
    NumberParameter(),
    IntParameter(),
    FloatParameter(),
    BooleanParameter(),
    ListParameter(),
    ListParameter(IntParameter()),
    DictParameter(),
    DictParameter(StringParameter()),
    ChoiceParameter(["a", "b", 3]),
    ChoiceParameter(Size),
    DateParameter(),
    DateTimeParameter(),
    DecimalParameter(),
    DecimalParameter(max_digits=8, decimal_places=2),
    UUIDParameter(),
    EmailParameter(),
    URLParameter(),
    JSONParameter(),
]


def refusal(convert, *args):
    """The sentences with which `convert` refuses its arguments: a flat list that can be sent."""
    with pytest.raises(ValidationError) as caught:
        convert(*args)
    detail = caught.value.detail
    assert isinstance(detail, list)
    assert detail
    assert all(isinstance(sentence, ErrorDetail) for sentence in detail)
    json.dumps(detail, ensure_ascii=False).encode()
    return [str(sentence) for sentence in detail]


def refusals(convert, *args):
    """The same of a whole mapping: ``{name: [sentence, …]}``."""
    with pytest.raises(ValidationError) as caught:
        convert(*args)
    detail = caught.value.detail
    assert isinstance(detail, dict)
    assert all(isinstance(sentence, ErrorDetail) for sentences in detail.values() for sentence in sentences)
    json.dumps(detail, ensure_ascii=False).encode()
    return {name: [str(sentence) for sentence in sentences] for name, sentences in detail.items()}


def brief(value):
    """The id of a value that pytest cannot write, or not on one line. None means pytest's own id."""
    too_long = len(value) > 50 if isinstance(value, str) else isinstance(value, int) and abs(value) > LARGEST
    return "huge" if too_long else repr(value) if isinstance(value, Parameter) else None


def nested(depth, inner=0):
    for _ in range(depth):
        inner = [inner]
    return inner


# Conversions


@pytest.mark.parametrize(
    ("parameter", "given_value", "expected"),
    [
        (StringParameter(), "text", "text"),
        (StringParameter(), " kept \n", " kept \n"),
        (StringParameter(), "", ""),
        (StringParameter(), 6, "6"),
        (StringParameter(), 6.5, "6.5"),
        (StringParameter(trim_whitespace=True), " text ", "text"),
        (StringParameter(allow_null=True), None, None),
        (NumberParameter(), 6, 6),
        (NumberParameter(), 6.0, 6.0),
        (NumberParameter(), 6.5, 6.5),
        (NumberParameter(), "6", 6),
        (NumberParameter(), "6.5", 6.5),
        (NumberParameter(), "6.0", 6),
        (NumberParameter(), "1e3", 1000),
        (NumberParameter(), "9007199254740993", 2**53 + 1),
        (NumberParameter(), 2**200, 2**200),
        (NumberParameter(), Decimal("6.5"), 6.5),
        (NumberParameter(), Fraction(13, 2), 6.5),
        (IntParameter(), 6, 6),
        (IntParameter(), "6", 6),
        (IntParameter(), " -6 ", -6),
        (IntParameter(), 6.0, 6),
        (IntParameter(), 1e21, 10**21),
        (IntParameter(), Decimal(6), 6),
        (FloatParameter(), 6, 6.0),
        (FloatParameter(), "6.5", 6.5),
        (FloatParameter(), 6.5, 6.5),
        (BooleanParameter(), True, True),
        (BooleanParameter(), False, False),
        (BooleanParameter(), "True", True),
        (BooleanParameter(), "FALSE", False),
        (BooleanParameter(), 1, True),
        (BooleanParameter(), 0, False),
        (BooleanParameter(), "1", True),
        (BooleanParameter(), "0", False),
        (ListParameter(), [1, "a", None, {"b": [True]}], [1, "a", None, {"b": [True]}]),
        (ListParameter(IntParameter()), ["1", 2], [1, 2]),
        (ListParameter(IntParameter()), "6", [6]),
        (ListParameter(StringParameter()), "several letters", ["several letters"]),
        (ListParameter(IntParameter()), (1, 2), [1, 2]),
        (ListParameter(IntParameter()), {3}, [3]),
        (ListParameter(IntParameter()), range(3), [0, 1, 2]),
        (ListParameter(IntParameter()), [], []),
        (ListParameter(DictParameter()), {"a": 1}, [{"a": 1}]),
        (ListParameter(ListParameter(IntParameter())), [["1"], 2], [[1], [2]]),
        (ListParameter(IntParameter(allow_null=True)), [1, None], [1, None]),
        (DictParameter(), {"a": 1}, {"a": 1}),
        (DictParameter(), [1, {"a": 2}], [1, {"a": 2}]),
        (DictParameter(), {}, {}),
        (DictParameter(), MappingProxyType({"a": 1}), {"a": 1}),
        (DictParameter(IntParameter()), {"a": "1"}, {"a": 1}),
        (DictParameter(IntParameter()), ["1"], [1]),
        (ChoiceParameter(["a", "b"]), "a", "a"),
        (ChoiceParameter(choices=[("a", "First"), ("b", "Second")]), "b", "b"),
        (ChoiceParameter([1, 2]), "2", 2),
        (ChoiceParameter([("Group", [("a", "First")])]), "a", "a"),
        (ChoiceParameter(Colour.choices), Colour.RED, "red"),
        (ChoiceParameter(Size), 2, Size.LARGE),
        (ChoiceParameter(Size), Size.LARGE, Size.LARGE),
        (ChoiceParameter(["a"], allow_blank=True), "", ""),
        (DateParameter(), "2024-02-29", dt.date(2024, 2, 29)),
        (DateParameter(), dt.date(2024, 2, 29), dt.date(2024, 2, 29)),
        (DateParameter(input_formats=["%d.%m.%Y"]), "29.02.2024", dt.date(2024, 2, 29)),
        (DateTimeParameter(), "2024-02-29T12:00:00Z", dt.datetime(2024, 2, 29, 12, tzinfo=UTC)),
        (DateTimeParameter(), "2024-02-29T12:00:00+02:00", dt.datetime(2024, 2, 29, 10, tzinfo=UTC)),
        (DecimalParameter(), "1.10", Decimal("1.10")),
        (DecimalParameter(), 1.1, Decimal("1.1")),
        (DecimalParameter(), 3, Decimal(3)),
        (DecimalParameter(), Decimal("1.1"), Decimal("1.1")),
        (DecimalParameter(decimal_places=2), "1" * 40, Decimal("1" * 40)),
        (UUIDParameter(), str(ID), ID),
        (UUIDParameter(), ID.hex, ID),
        (UUIDParameter(), ID, ID),
        (EmailParameter(), " a@example.com ", "a@example.com"),
        (URLParameter(), "https://example.com/?q=1", "https://example.com/?q=1"),
        (JSONParameter(), None, None),
        (JSONParameter(), {"a": [1.5, None, True, "b", {}]}, {"a": [1.5, None, True, "b", {}]}),
        (JSONParameter(), (1, (2,)), [1, [2]]),
        (Parameter(), [1], [1]),
    ],
    ids=brief,
)
def test_takes_as_python(parameter, given_value, expected):
    value = parameter.to_python(given_value)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (DateParameter(), dt.date(2024, 2, 29), "2024-02-29"),
        (DateTimeParameter(), dt.datetime(2024, 2, 29, 12, tzinfo=UTC), "2024-02-29T12:00:00Z"),
        (DecimalParameter(), Decimal("1.10"), "1.10"),
        (DecimalParameter(), Decimal("1E+3"), "1000"),
        (DecimalParameter(decimal_places=2), Decimal("1.1"), "1.10"),
        (UUIDParameter(), ID, str(ID)),
        (ChoiceParameter(Colour), Colour.RED, "red"),
        (ChoiceParameter(Size), Size.LARGE, 2),
        (ListParameter(DateParameter()), [dt.date(2024, 2, 29)], ["2024-02-29"]),
        (ListParameter(UUIDParameter()), ID, [str(ID)]),
        (ListParameter(IntParameter()), (n for n in (1, 2)), [1, 2]),
        (DictParameter(DecimalParameter()), {"a": Decimal(1)}, {"a": "1"}),
        (NumberParameter(), Decimal("6.5"), 6.5),
        (FloatParameter(), 6, 6.0),
    ],
)
def test_gives_as_json(parameter, value, expected):
    given_json = parameter.to_json(value)
    assert given_json == expected
    assert type(given_json) is type(expected)


@pytest.mark.parametrize(
    ("parameter", "wrong", "sentence"),
    [
        (StringParameter(), True, "Not a valid string."),
        (StringParameter(), ["a"], "Not a valid string."),
        (StringParameter(), {"a": 1}, "Not a valid string."),
        (StringParameter(), b"a", "Not a valid string."),
        (StringParameter(), None, "This field may not be null."),
        (StringParameter(), "a\0b", "Null characters are not allowed."),
        (StringParameter(), "a\ud800b", "Surrogate characters are not allowed: U+D800."),
        (StringParameter(), NAN, "A valid number is required."),
        (StringParameter(), 10**5000, "A valid number is required."),
        (StringParameter(max_length=2), "abc", "Ensure this field has no more than 2 characters."),
        (StringParameter(min_length=2), "a", "Ensure this field has at least 2 characters."),
        (StringParameter(min_length=2), "", "This field may not be blank."),
        (StringParameter(allow_blank=False), "", "This field may not be blank."),
        (NumberParameter(), "not a number", "A valid number is required."),
        (NumberParameter(), True, "A valid number is required."),
        (NumberParameter(), [1], "A valid number is required."),
        (NumberParameter(max_value=2), 3, "Ensure this value is less than or equal to 2."),
        (NumberParameter(max_value=2**53), 2**53 + 1, f"Ensure this value is less than or equal to {2**53}."),
        (IntParameter(), "not a number", "A valid integer is required."),
        (IntParameter(), 6.5, "A valid integer is required."),
        (IntParameter(), "6.5", "A valid integer is required."),
        (IntParameter(), Decimal("6.5"), "A valid integer is required."),
        (IntParameter(), False, "A valid integer is required."),
        (IntParameter(), {}, "A valid integer is required."),
        (IntParameter(), None, "This field may not be null."),
        (IntParameter(), "1" * 5000, "String value too large."),
        (IntParameter(min_value=1), 0, "Ensure this value is greater than or equal to 1."),
        (IntParameter(min_value=1), "0", "Ensure this value is greater than or equal to 1."),
        (FloatParameter(), True, "A valid number is required."),
        (FloatParameter(min_value=1), 0.5, "Ensure this value is greater than or equal to 1."),
        (BooleanParameter(), "yes", "Must be a valid boolean."),
        (BooleanParameter(), "on", "Must be a valid boolean."),
        (BooleanParameter(), "", "Must be a valid boolean."),
        (BooleanParameter(), 2, "Must be a valid boolean."),
        (BooleanParameter(), [True], "Must be a valid boolean."),
        (BooleanParameter(), None, "This field may not be null."),
        (ListParameter(), None, "This field may not be null."),
        (ListParameter(allow_empty=False), [], "This list may not be empty."),
        (ListParameter(min_length=2), [1], "Ensure this field has at least 2 elements."),
        (ListParameter(max_length=2), [1, 2, 3], "Ensure this field has no more than 2 elements."),
        (ListParameter(IntParameter()), [1, 2, "x"], "Item 2: A valid integer is required."),
        (ListParameter(ListParameter(IntParameter())), [[1], [2, "x"]], "Item 1: Item 1: A valid integer is required."),
        (DictParameter(), "text", 'Expected a dictionary or a list but got type "str".'),
        (DictParameter(), 1, 'Expected a dictionary or a list but got type "int".'),
        (DictParameter(), {1: 2}, "The keys of a JSON object are strings, not of type int."),
        (DictParameter(allow_empty=False), {}, "This dictionary may not be empty."),
        (DictParameter(IntParameter()), {"a": "x"}, 'Key "a": A valid integer is required.'),
        (DictParameter(IntParameter()), [1, "x"], "Item 1: A valid integer is required."),
        (ChoiceParameter(["a", "b"]), "c", '"c" is not a valid choice.'),
        (ChoiceParameter(["a", "b"]), ["a"], '"list" is not a valid choice.'),
        (ChoiceParameter(["a", "b"]), "", '"" is not a valid choice.'),
        (ChoiceParameter(["a", "b"]), "c" * 1000, f'"{"c" * 60}…" is not a valid choice.'),
        (ChoiceParameter([1, 2]), True, '"True" is not a valid choice.'),
        (DateParameter(), "29.02.2024", "Date has wrong format. Use one of these formats instead: YYYY-MM-DD."),
        (DateParameter(), "2023-02-29", "Date has wrong format. Use one of these formats instead: YYYY-MM-DD."),
        (DateParameter(), True, "Date has wrong format. Use one of these formats instead: YYYY-MM-DD."),
        (DateParameter(), dt.datetime(2024, 1, 1, tzinfo=UTC), "Expected a date but got a datetime."),
        (DateTimeParameter(), dt.date(2024, 1, 1), "Expected a datetime but got a date."),
        (DecimalParameter(), "x", "A valid number is required."),
        (DecimalParameter(), True, "A valid number is required."),
        (DecimalParameter(), [1], "A valid number is required."),
        (DecimalParameter(), 10**5000, "A valid number is required."),
        (DecimalParameter(), "1" * 5000, "String value too large."),
        (DecimalParameter(), "1E+999999999", "String value too large."),
        (DecimalParameter(), "1E-999999999", "String value too large."),
        (DecimalParameter(max_digits=3), "1234", "Ensure that there are no more than 3 digits in total."),
        (DecimalParameter(decimal_places=1), "1.23", "Ensure that there are no more than 1 decimal places."),
        (DecimalParameter(max_value=1), "2", "Ensure this value is less than or equal to 1."),
        (UUIDParameter(), "x", "Must be a valid UUID."),
        (UUIDParameter(), 5, "Must be a valid UUID."),
        (EmailParameter(), "x", "Enter a valid email address."),
        (EmailParameter(), "", "This field may not be blank."),
        (EmailParameter(), 5, "Enter a valid email address."),
        (URLParameter(), "javascript:alert(1)", "Enter a valid URL."),
        (JSONParameter(), {"a": NAN}, 'Key "a": A valid number is required.'),
        (JSONParameter(), {"a": {"b": ["\0"]}}, 'Key "a": Key "b": Item 0: Null characters are not allowed.'),
        (JSONParameter(), {"a\0": 1}, "Null characters are not allowed."),
        (JSONParameter(), {"\ud800": 1}, "Surrogate characters are not allowed: U+D800."),
        (JSONParameter(), {1: 1}, "The keys of a JSON object are strings, not of type int."),
        (JSONParameter(), dt.date(2024, 1, 1), "A value of type date is not JSON."),
        (JSONParameter(), [{1, 2}], "Item 0: A value of type set is not JSON."),
        (JSONParameter(allow_null=False), None, "This field may not be null."),
    ],
    ids=brief,
)
def test_refuses_in_both_directions(parameter, wrong, sentence):
    assert refusal(parameter.to_python, wrong) == [sentence]
    assert refusal(parameter.to_json, wrong) == [sentence]


@pytest.mark.parametrize("wrong", [NAN, INF, -INF, "NaN", "Infinity", "-inf", Decimal("NaN"), Decimal("sNaN"), "1e999"])
@pytest.mark.parametrize("type_", [NumberParameter, IntParameter, FloatParameter, DecimalParameter])
def test_numbers_are_finite(type_, wrong):
    refusal(type_().to_python, wrong)
    refusal(ListParameter(type_()).to_json, [1, wrong])


@pytest.mark.parametrize("wrong", [NAN, INF, -INF, 10**5000, int(LARGEST) * 2], ids=brief)
@pytest.mark.parametrize("parameter", EVERY_TYPE, ids=repr)
def test_no_type_takes_what_is_no_number_in_json(parameter, wrong):
    for value in (wrong, [wrong], {"a": [wrong]}):
        refusal(parameter.to_python, value)
        refusal(parameter.to_json, value)


@pytest.mark.parametrize("parameter", EVERY_TYPE, ids=repr)
def test_deep_nesting_is_a_sentence(parameter):
    value = nested(100_000)
    try:
        assert all(len(sentence) < 200 for sentence in refusal(parameter.to_python, value))
        refusal(parameter.to_json, value)
    finally:
        while value:  # Python would recurse as deeply to free it at once
            value = value.pop()


def test_json_may_be_nested_to_the_limit():
    assert JSONParameter().to_python(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    assert refusal(JSONParameter().to_python, nested(MAX_DEPTH + 1)) == [
        f"Lists and dictionaries may be nested {MAX_DEPTH} deep at most."
    ]


def test_a_list_inside_itself_is_nested_too_deeply():
    value = []
    value.append(value)
    refusal(JSONParameter().to_json, value)


def test_all_wrong_items_are_told_up_to_a_limit():
    told = refusal(ListParameter(IntParameter()).to_python, [1, "a", 2, "b"])
    assert told == ["Item 1: A valid integer is required.", "Item 3: A valid integer is required."]
    told = refusal(ListParameter(IntParameter()).to_python, ["x"] * 1000)
    assert len(told) == MAX_SENTENCES + 1
    assert told[-1] == "There are more errors than these."


def test_a_key_in_a_sentence_is_cut_and_can_be_sent():
    assert refusal(DictParameter(IntParameter()).to_python, {"k" * 1000: "x"}) == [
        f'Key "{"k" * 60}…": A valid integer is required.'
    ]


def test_containers_give_copies():
    value = {"a": [1]}
    DictParameter().to_python(value)["a"].append(2)
    ListParameter().to_python([value])[0]["a"].append(2)
    assert value == {"a": [1]}


def test_validators_see_python_values():
    def no_sunday(date):
        if date.isoweekday() == 7:
            raise DjangoValidationError("Not on %(day)s.", params={"day": "Sundays"})

    def no_repeats(dates):
        if len(set(dates)) < len(dates):
            raise ValidationError("No repeats.")

    sunday = dt.date(2024, 3, 3)
    assert refusal(DateParameter(validators=[no_sunday]).to_python, "2024-03-03") == ["Not on Sundays."]
    assert refusal(DateParameter(validators=[no_sunday]).to_json, sunday) == ["Not on Sundays."]
    dates = ListParameter(DateParameter(), validators=[no_repeats])
    assert refusal(dates.to_python, ["2024-03-03", "2024-03-03"]) == ["No repeats."]
    assert refusal(dates.to_json, [sunday, sunday]) == ["No repeats."]


def test_error_messages_can_be_one_s_own():
    parameter = IntParameter(error_messages={"invalid": "Digits, please."})
    assert refusal(parameter.to_python, "x") == ["Digits, please."]


def test_sentences_follow_the_language_of_the_moment():
    with translation.override("de"):
        assert refusal(IntParameter().to_python, "x") == ["Eine gültige Ganzzahl ist erforderlich."]
        assert refusals(parse_inputs, {"n": IntParameter()}, {}) != {"n": ["This field is required."]}


# Dates and times


def test_a_naive_datetime_is_in_the_current_time_zone():
    with timezone.override("Europe/Berlin"):
        value = DateTimeParameter().to_python("2024-02-29T12:00:00")
    assert value == dt.datetime(2024, 2, 29, 11, tzinfo=UTC)
    assert value.utcoffset() == dt.timedelta(hours=1)


def test_an_instant_has_one_json_whatever_the_time_zone():
    instant = dt.datetime(2024, 2, 29, 12, tzinfo=UTC)
    with timezone.override("Asia/Kathmandu"):
        assert DateTimeParameter().to_json(instant) == "2024-02-29T12:00:00Z"


def test_a_datetime_is_naive_without_use_tz():
    with override_settings(USE_TZ=False):
        value = DateTimeParameter().to_python("2024-02-29T12:00:00")
        assert value.tzinfo is None
        assert DateTimeParameter().to_json(value) == "2024-02-29T12:00:00"


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("text", ["0001-01-01T00:00:00", "9999-12-31T23:59:59", "0001-01-01T00:00:00Z"])
def test_the_ends_of_the_calendar_are_no_crash(zone, text):
    with timezone.override(zone):
        try:
            sent = DateTimeParameter().to_json(text)
        except ValidationError:
            assert refusal(DateTimeParameter().to_json, text) == ["Datetime value out of range."]
        else:
            assert DateTimeParameter().to_json(sent) == sent


def test_formats_of_the_projects_serializers_change_nothing():
    formats = {
        "DATE_FORMAT": "%d.%m.%Y",
        "DATE_INPUT_FORMATS": ["%d.%m.%Y"],
        "DATETIME_FORMAT": None,
        "DATETIME_INPUT_FORMATS": ["%d.%m.%Y %H:%M"],
        "COERCE_DECIMAL_TO_STRING": False,
    }
    with override_settings(REST_FRAMEWORK=formats):
        assert DateParameter().to_json(dt.date(2024, 2, 29)) == "2024-02-29"
        assert DateParameter().to_python("2024-02-29") == dt.date(2024, 2, 29)
        assert DateTimeParameter().to_json(dt.datetime(2024, 2, 29, tzinfo=UTC)) == "2024-02-29T00:00:00Z"
        assert DateTimeParameter().to_python("2024-02-29T00:00:00Z") == dt.datetime(2024, 2, 29, tzinfo=UTC)
        assert DecimalParameter().to_json(Decimal("1.5")) == "1.5"


# Constructors


def test_a_parameter_is_required_unless_told_otherwise():
    assert IntParameter().required
    assert not IntParameter(required=False).required
    assert not IntParameter(False).required
    assert not IntParameter(default=1).required
    assert not ListParameter(IntParameter(), required=False).required


@pytest.mark.parametrize(
    ("type_", "options", "named"),
    [
        (IntParameter, {"max_length": 3}, "max_length"),
        (StringParameter, {"min_value": 3}, "min_value"),
        (StringParameter, {"read_only": True}, "read_only"),
        (DateTimeParameter, {"format": "%Y"}, "format"),
        (DecimalParameter, {"coerce_to_string": False}, "coerce_to_string"),
        (ListParameter, {"child": StringParameter(), "source": "x"}, "source"),
        (JSONParameter, {"encoder": None}, "encoder"),
        (Parameter, {"surprise": 1}, "surprise"),
        (ChoiceParameter, {"choices": ["a"], "html_cutoff": 1}, "html_cutoff"),
    ],
)
def test_an_unknown_keyword_is_a_type_error_that_names_it(type_, options, named):
    with pytest.raises(TypeError, match=f"'{named}'"):
        type_(**options)


def test_a_child_is_a_parameter_and_not_its_class():
    with pytest.raises(TypeError, match=r"takes a parameter, such as StringParameter\(\)"):
        ListParameter(StringParameter)


def test_choices_are_json():
    with pytest.raises(TypeError, match="A choice is a string or a number"):
        ChoiceParameter([dt.date(2024, 1, 1)])


@pytest.mark.parametrize("parameter", EVERY_TYPE, ids=repr)
def test_a_parameter_cannot_be_changed(parameter):
    with pytest.raises(AttributeError, match="cannot be changed"):
        parameter.required = False
    with pytest.raises(AttributeError, match="cannot be changed"):
        del parameter.required
    assert parameter.required


def test_parameters_with_the_same_arguments_are_equal():
    assert IntParameter(min_value=1) == IntParameter(min_value=1)
    assert hash(IntParameter(min_value=1)) == hash(IntParameter(min_value=1))
    assert IntParameter(min_value=1) != IntParameter(min_value=2)
    assert IntParameter() != NumberParameter()
    assert IntParameter() != "IntParameter()"
    assert ListParameter(IntParameter()) == ListParameter(IntParameter())
    assert ListParameter(IntParameter()) != ListParameter(FloatParameter())


def test_repr_is_what_was_written():
    assert repr(IntParameter()) == "IntParameter()"
    assert repr(StringParameter(required=False, help_text="Who")) == "StringParameter(required=False, help_text='Who')"
    assert repr(ListParameter(IntParameter(min_value=1))) == "ListParameter(child=IntParameter(min_value=1))"
    assert repr(ListParameter()) == "ListParameter()"
    assert repr(ChoiceParameter(["a"])) == "ChoiceParameter(choices=['a'])"


# Custom parameters


def test_a_custom_parameter_is_two_methods():
    spec = {"point": PointParameter(), "path": ListParameter(PointParameter(), required=False)}
    values = parse_inputs(spec, {"point": [1, 2], "path": [[0, 0], [3, 4]]})
    assert values == {"point": Point(1, 2), "path": [Point(0, 0), Point(3, 4)]}
    assert dump_values(spec, values) == {"point": [1, 2], "path": [[0, 0], [3, 4]]}
    assert PointParameter().json_schema() == {}


def test_a_custom_default_is_a_python_value():
    assert parse_inputs({"point": PointParameter(default=Point(1, 2))}, {}) == {"point": Point(1, 2)}


def test_a_value_that_a_custom_parameter_did_not_expect_is_not_valid():
    spec = {"point": PointParameter(), "path": ListParameter(PointParameter())}
    assert refusals(parse_inputs, spec, {"point": 1, "path": [[0, 0], [1]]}) == {
        "point": ["This value is not valid."],
        "path": ["Item 1: This value is not valid."],
    }
    assert refusals(dump_values, spec, {"point": "x", "path": []}) == {"point": ["This value is not valid."]}


def test_an_error_of_the_custom_parameter_itself_is_not_hidden():
    class Broken(Parameter):
        def to_python(self, value):
            raise RuntimeError("No database.")

    with pytest.raises(RuntimeError, match="No database"):
        parse_inputs({"a": Broken()}, {"a": 1})


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValidationError("A sentence."), ["A sentence."]),
        (ValidationError(["One.", "Two."]), ["One.", "Two."]),
        (ValidationError({"x": ["One."], "y": {"z": "Two."}}), ["x: One.", "y: z: Two."]),
        (DjangoValidationError("A sentence."), ["A sentence."]),
        (DjangoValidationError({"x": ["One."]}), ["x: One."]),
    ],
)
def test_a_custom_parameter_says_what_is_wrong_in_its_own_words(error, told):
    class Refusing(Parameter):
        def to_python(self, value):
            raise error

    assert refusals(parse_inputs, {"a": Refusing()}, {"a": 1}) == {"a": told}


@pytest.mark.parametrize("no_json", [NAN, {1: 2}, "\0", object(), Decimal(1)])
def test_what_a_custom_parameter_gives_has_to_be_json(no_json):
    class Careless(Parameter):
        def to_json(self, value):
            return no_json

    refusals(dump_values, {"a": Careless()}, {"a": 1})


def test_a_custom_parameter_may_have_attributes_and_a_schema():
    class Between(Parameter):
        def __init__(self, low, high, **options):
            super().__init__(**options)
            self.low, self.high = low, high

        def json_schema(self):
            return super().json_schema() | {"minimum": self.low, "maximum": self.high}

    parameter = Between(1, 2, help_text="A number")
    assert parameter.json_schema() == {"description": "A number", "minimum": 1, "maximum": 2}
    assert repr(parameter) == "Between(help_text='A number', low=1, high=2)"
    assert parameter == Between(1, 2, help_text="A number")
    with pytest.raises(AttributeError):
        parameter.low = 0


# The context of a conversion


class OwnParameter(Parameter):
    """Adds the user of its context, in both directions."""

    def to_python(self, value):
        return (value, current_context().user)

    def to_json(self, value):
        return [value, current_context().user]


class Tags(ListParameter):
    """A project's own list, which does not use the context."""

    def to_python(self, value):
        return super().to_python(value.split(","))


ANN = ConversionContext(user="ann")
OWN = {
    "one": OwnParameter(default="d"),
    "list": ListParameter(OwnParameter()),
    "nested": DictParameter(ListParameter(DictParameter(OwnParameter()))),
    "tags": Tags(OwnParameter()),
}


def test_a_parameter_knows_for_whom_it_converts_however_deep_it_is():
    given = {"one": 1, "list": [1], "nested": {"a": [{"b": 1}]}, "tags": "1"}
    assert parse_inputs(OWN, given, ANN) == {
        "one": (1, "ann"), "list": [(1, "ann")], "nested": {"a": [{"b": (1, "ann")}]}, "tags": [("1", "ann")],
    }  # fmt: skip
    values = {"one": 1, "list": [1], "nested": {"a": [{"b": 1}]}, "tags": ["1"]}
    for dump in (dump_values, dump_outputs):
        assert dump(OWN, values, ANN) == {
            "one": [1, "ann"], "list": [[1, "ann"]], "nested": {"a": [{"b": [1, "ann"]}]}, "tags": [["1", "ann"]],
        }  # fmt: skip


def test_a_default_is_converted_for_somebody_too():
    assert parse_inputs({"a": OwnParameter(default="d")}, {}, ANN) == {"a": (["d", "ann"], "ann")}


def test_outside_of_a_conversion_there_is_nobody():
    with pytest.raises(ValidationError):
        parse_inputs({"a": IntParameter()}, {"a": "x"}, ANN)
    context = current_context()
    assert (context.user, context.run, context.build_absolute_uri("/a/")) == (None, None, "/a/")
    assert parse_inputs({"a": OwnParameter()}, {"a": 1}) == {"a": (1, None)}


def test_a_conversion_inside_another_one_is_for_the_same_unless_it_says_for_whom():
    class Nesting(Parameter):
        def to_python(self, value):
            inner = {"a": OwnParameter()}
            bob = ConversionContext(user="bob")
            found = [parse_inputs(inner, {"a": value}), parse_inputs(inner, {"a": value}, bob)]
            return [*(each["a"] for each in found), current_context().user]

    assert parse_inputs({"a": Nesting()}, {"a": 1}, ANN) == {"a": [(1, "ann"), (1, "bob"), "ann"]}


def test_a_context_cannot_be_changed():
    with pytest.raises(AttributeError):
        ANN.user = "bob"


# A task's inputs


def test_inputs_are_converted_in_the_order_of_the_spec():
    spec = {"b": IntParameter(), "a": StringParameter()}
    assert list(parse_inputs(spec, {"a": 1, "b": "2"}).items()) == [("b", 2), ("a", "1")]


def test_an_absent_input_is_its_default_or_stays_out():
    spec = {"a": IntParameter(required=False), "b": IntParameter(default="2"), "c": DateParameter(default=None)}
    assert parse_inputs(spec, {}) == {"b": 2, "c": None}


def test_null_for_an_input_that_is_not_required_leaves_it_out():
    spec = {"a": IntParameter(required=False), "b": IntParameter(default=2)}
    assert parse_inputs(spec, {"a": None, "b": None}) == {"b": 2}


def test_null_is_a_value_where_it_is_allowed():
    spec = {
        "a": IntParameter(required=False, allow_null=True),
        "b": IntParameter(default=2, allow_null=True),
        "c": IntParameter(allow_null=True),
        "d": JSONParameter(),
        "e": PointParameter(allow_null=True),
    }
    values = dict.fromkeys(spec)
    assert parse_inputs(spec, values) == values
    assert dump_values(spec, values) == values


def test_null_for_a_required_input_is_refused():
    spec = {"a": IntParameter(), "b": PointParameter()}
    told = {"a": ["This field may not be null."], "b": ["This field may not be null."]}
    assert refusals(parse_inputs, spec, {"a": None, "b": None}) == told
    assert refusals(dump_values, spec, {"a": None, "b": None}) == told


def test_a_default_is_a_new_value_each_time():
    spec = {"a": ListParameter(default=[]), "b": ListParameter(default=list)}
    parse_inputs(spec, {})["a"].append(1)
    assert parse_inputs(spec, {}) == {"a": [], "b": []}


def test_all_errors_are_told_at_once():
    spec = {
        "a": IntParameter(),
        "b": IntParameter(),
        "c": ListParameter(IntParameter(max_value=1)),
        "d": IntParameter(),
    }
    assert refusals(parse_inputs, spec, {"b": "x", "c": [1, 2, "x"], "d": 1, "e": 1}) == {
        "a": ["This field is required."],
        "b": ["A valid integer is required."],
        "c": [
            "Item 1: Ensure this value is less than or equal to 1.",
            "Item 2: A valid integer is required.",
        ],
        "e": ["Unknown input 'e'. Expected: a, b, c, d."],
    }


def test_a_task_without_inputs_expects_none():
    assert parse_inputs({}, {}) == {}
    assert refusals(parse_inputs, {}, {"a": 1}) == {"a": ["Unknown input 'a'. Expected: none."]}


def test_a_typing_error_in_a_name_is_told_first_with_the_name_that_was_meant():
    spec = {"seconds": IntParameter(), "colour": StringParameter(required=False)}
    told = refusals(parse_inputs, spec, {"secnods": 3})
    assert list(told.items()) == [
        ("secnods", ["Unknown input 'secnods'. Did you mean 'seconds'?"]),
        ("seconds", ["This field is required."]),
    ]
    told = refusals(parse_inputs, spec, {"seconds": 3, "color": "red"})
    assert told == {"color": ["Unknown input 'color'. Did you mean 'colour'?"]}
    told = refusals(dump_values, {"sum": IntParameter()}, {"summ": 3, "sum": 3})
    assert told == {"summ": ["Unknown name 'summ'. Did you mean 'sum'?"]}


@pytest.mark.parametrize("data", [None, [], "a", 1, [("a", 1)]])
def test_inputs_are_a_mapping(data):
    (sentence,) = refusal(parse_inputs, {"a": IntParameter()}, data)
    assert sentence == f"Expected an object with the names: a. Got {type(data).__name__}."


@pytest.mark.parametrize("name", ["\ud800", "x" * 100_000, 7, None], ids=brief)
def test_any_unknown_name_can_be_answered(name):
    ((told, _),) = refusals(parse_inputs, {}, {name: 1}).items()
    assert len(told) < 100


def test_many_unknown_names_are_told_up_to_a_limit():
    assert len(refusals(parse_inputs, {}, {str(n): 1 for n in range(1000)})) == MAX_SENTENCES


def test_inputs_from_python_are_taken_as_those_from_json():
    spec = {"day": DateParameter(), "id": UUIDParameter(), "price": DecimalParameter()}
    python = {"day": dt.date(2024, 2, 29), "id": ID, "price": Decimal("1.50")}
    stored = dump_values(spec, parse_inputs(spec, python))
    assert stored == {"day": "2024-02-29", "id": str(ID), "price": "1.50"}
    assert parse_inputs(spec, stored) == python
    assert dump_values(spec, parse_inputs(spec, stored)) == stored


# A task's outputs


def test_outputs_are_what_the_task_declares():
    spec = {"sum": NumberParameter(), "note": StringParameter(required=False)}
    assert dump_values(spec, {"sum": 3}) == {"sum": 3}
    assert dump_values(spec, {"sum": 3, "note": None}) == {"sum": 3, "note": None}
    assert refusals(dump_values, spec, {"note": [], "more": 1}) == {
        "sum": ["This field is required."],
        "note": ["Not a valid string."],
        "more": ["Unknown name 'more'. Expected: sum, note."],
    }
    assert refusal(dump_values, spec, 3) == ["Expected an object with the names: sum, note. Got int."]


def test_a_default_says_nothing_about_outputs():
    assert dump_values({"a": IntParameter(default=1)}, {}) == {}


# Describing themselves


@pytest.mark.parametrize(
    ("parameter", "schema"),
    [
        (Parameter(), {}),
        (JSONParameter(), {}),
        (StringParameter(), {"type": "string"}),
        (StringParameter(max_length=5), {"type": "string", "maxLength": 5}),
        (StringParameter(min_length=2), {"type": "string", "minLength": 2}),
        (StringParameter(allow_blank=False), {"type": "string", "minLength": 1}),
        (StringParameter(min_length=2, allow_blank=True), {"type": "string"}),
        (StringParameter(allow_null=True), {"type": ["string", "null"]}),
        (NumberParameter(min_value=0), {"type": "number", "minimum": 0}),
        (IntParameter(max_value=9), {"type": "integer", "maximum": 9}),
        (FloatParameter(), {"type": "number"}),
        (BooleanParameter(default=False), {"type": "boolean", "default": False}),
        (ListParameter(), {"type": "array", "items": {}}),
        (
            ListParameter(IntParameter(min_value=0), min_length=1, max_length=3),
            {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 3},
        ),
        (ListParameter(allow_empty=False), {"type": "array", "items": {}, "minItems": 1}),
        (DictParameter(), {"type": ["object", "array"], "additionalProperties": {}, "items": {}}),
        (ChoiceParameter(Colour.choices), {"enum": ["red", "blue"]}),
        (ChoiceParameter(Size, default=Size.LARGE), {"enum": [1, 2], "default": 2}),
        (ChoiceParameter(["a"], allow_null=True, allow_blank=True), {"enum": ["a", "", None]}),
        (DateParameter(), {"type": "string", "format": "date"}),
        (DateParameter(default=dt.date(2024, 1, 1)), {"type": "string", "format": "date", "default": "2024-01-01"}),
        (DateTimeParameter(default=timezone.now), {"type": "string", "format": "date-time"}),
        (DecimalParameter(), {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}),
        (UUIDParameter(), {"type": "string", "format": "uuid"}),
        (EmailParameter(), {"type": "string", "format": "email", "minLength": 1}),
        (URLParameter(help_text="Where"), {"type": "string", "format": "uri", "minLength": 1, "description": "Where"}),
        (IntParameter(help_text=lazystr("How many")), {"type": "integer", "description": "How many"}),
    ],
)
def test_describes_itself(parameter, schema):
    assert parameter.json_schema() == schema
    json.dumps(parameter.json_schema(), allow_nan=False)
    Draft202012Validator.check_schema(parameter.json_schema())


def test_a_spec_describes_an_object():
    spec = {"a": IntParameter(), "b": StringParameter(required=False), "c": PointParameter(default=Point(1, 2))}
    assert object_schema(spec) == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"default": [1, 2]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    Draft202012Validator.check_schema(object_schema(spec))


def test_optional_outputs_may_be_null_in_the_schema():
    spec = {"a": IntParameter(), "b": StringParameter(required=False), "c": ChoiceParameter(["x"], required=False)}
    schema = object_schema(spec, optional_null=True)
    assert schema["properties"] == {
        "a": {"type": "integer"},
        "b": {"type": ["string", "null"]},
        "c": {"enum": ["x", None]},
    }
    Draft202012Validator(schema).validate(dump_values(spec, {"a": 1, "b": None, "c": None}))


# What holds for every value

# No deadline: a slow machine is not a failure.
examples = settings(deadline=None, max_examples=50)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
numbers = st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=10,
)
decimals = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)
# Anything that a client may send or a task may return by mistake.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.dates()
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.uuids()
    | st.sampled_from(
        ["6", "6.5", "1e400", "a", "true", "2024-02-29", "a@b.de", str(ID), *Colour, *Size, int, object()]
    ),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers(), inner) | st.tuples(inner, inner)
    ),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        (StringParameter(), texts),
        (NumberParameter(), numbers),
        (IntParameter(), st.integers()),
        (FloatParameter(), st.floats(allow_nan=False, allow_infinity=False)),
        (BooleanParameter(), st.booleans()),
        (ListParameter(), st.lists(json_values)),
        (ListParameter(DateParameter()), st.lists(st.dates())),
        (DictParameter(), st.dictionaries(texts, json_values) | st.lists(json_values)),
        (DictParameter(UUIDParameter()), st.dictionaries(texts, st.uuids())),
        (ChoiceParameter(Size), st.sampled_from(Size)),
        (DateParameter(), st.dates()),
        (DateTimeParameter(), st.datetimes(timezones=st.just(UTC))),
        (DecimalParameter(), decimals),
        (DecimalParameter(max_digits=12, decimal_places=2), st.decimals(0, 10**9, places=2)),
        (UUIDParameter(), st.uuids()),
        (EmailParameter(), st.emails(domains=st.just("example.com"))),
        (JSONParameter(), json_values),
        (PointParameter(), st.builds(Point, numbers, numbers)),
    ],
    ids=brief,
)
@examples
@given(data=st.data())
def test_python_to_json_and_back_is_the_same(parameter, values, data):
    value = data.draw(values)
    sent = json.loads(json.dumps(parameter.to_json(value), allow_nan=False))
    back = parameter.to_python(sent)
    assert back == value
    assert type(back) is type(value)
    assert parameter.to_json(back) == sent


@pytest.mark.parametrize("parameter", EVERY_TYPE, ids=repr)
@examples
@given(value=anything)
def test_any_value_is_converted_or_refused_in_sentences(parameter, value):
    for convert in (parameter.to_python, parameter.to_json):
        try:
            convert(value)
        except ValidationError:
            refusal(convert, value)


@pytest.mark.parametrize("parameter", EVERY_TYPE, ids=repr)
@examples
@given(value=anything)
def test_json_is_what_the_schema_says_and_stays_as_it_is(parameter, value):
    try:
        sent = parameter.to_json(value)
    except ValidationError:
        return
    json.dumps(sent, allow_nan=False, ensure_ascii=False).encode()
    Draft202012Validator(parameter.json_schema()).validate(sent)
    assert parameter.to_json(parameter.to_python(sent)) == sent


def test_decimals_do_not_depend_on_the_thread_s_context():
    with decimal.localcontext(prec=3):
        parameter = DecimalParameter(decimal_places=4)
        assert parameter.to_json(parameter.to_python("123456.7891")) == "123456.7891"


# Integers that JavaScript does not read exactly

PAST = 2**53 + 1


@pytest.mark.parametrize(
    ("parameter", "value", "place"),
    [
        (IntParameter(), PAST, ""),
        (IntParameter(), -PAST, ""),
        (IntParameter(), 1e20, ""),
        (IntParameter(), str(PAST), ""),
        (NumberParameter(), PAST, ""),
        (NumberParameter(), str(PAST), ""),
        (JSONParameter(), PAST, ""),
        (JSONParameter(), [1, {"a": [2, PAST]}], 'Item 1: Key "a": Item 1: '),
        (DictParameter(), {"a": PAST}, 'Key "a": '),
        (DictParameter(), [0, PAST], "Item 1: "),
        (ListParameter(IntParameter()), [1, PAST], "Item 1: "),
        (ListParameter(ListParameter(NumberParameter())), [[1], [PAST]], "Item 1: Item 0: "),
        (ChoiceParameter([PAST]), PAST, ""),
        (Parameter(), PAST, ""),
    ],
    ids=brief,
)
def test_an_output_that_a_page_would_read_as_another_number_is_refused(parameter, value, place):
    assert dump_values({"a": parameter}, {"a": value}), "as an input it is taken"
    with pytest.raises(ValidationError) as refusal:
        dump_outputs({"a": parameter}, {"a": value})
    (sentence,) = refusal.value.detail["a"]
    assert sentence.startswith(place)
    assert "past 2**53" in sentence
    assert "IntParameter(as_string=True)" in sentence


@pytest.mark.parametrize(
    ("parameter", "value", "written"),
    [
        (IntParameter(), 2**53, 2**53),
        (IntParameter(), -(2**53), -(2**53)),
        (NumberParameter(), 1e300, 1e300),
        (FloatParameter(), float(2**60), float(2**60)),
        (JSONParameter(), [True, None, 2**53, [1e300], {"a": "x"}], [True, None, 2**53, [1e300], {"a": "x"}]),
        (DecimalParameter(), PAST, str(PAST)),
        (StringParameter(), PAST, str(PAST)),
        (IntParameter(as_string=True), PAST, str(PAST)),
        (IntParameter(as_string=True), -6, "-6"),
        (IntParameter(as_string=True), "6", "6"),
        (IntParameter(required=False, as_string=True), None, None),
        (IntParameter(allow_null=True, as_string=True), None, None),
        (ListParameter(IntParameter(as_string=True)), [1, PAST], ["1", str(PAST)]),
        (DictParameter(IntParameter(as_string=True)), {"a": 2**70}, {"a": str(2**70)}),
    ],
    ids=brief,
)
def test_an_output_that_a_page_reads_exactly(parameter, value, written):
    assert dump_outputs({"a": parameter}, {"a": value}) == {"a": written}


def test_an_integer_that_is_a_string_in_json_is_an_integer_in_python_and_keeps_its_limits():
    parameter = IntParameter(as_string=True, max_value=2**60, default=5)
    assert parse_inputs({"a": parameter}, {"a": str(2**60)}) == {"a": 2**60}
    assert parse_inputs({"a": parameter}, {}) == {"a": 5}
    with pytest.raises(ValidationError):
        parse_inputs({"a": parameter}, {"a": str(2**60 + 1)})
    assert parameter.json_schema() == {"type": "string", "pattern": "^-?[0-9]+$", "default": "5"}
    assert repr(IntParameter(as_string=True)) == "IntParameter(as_string=True)"
    assert IntParameter(as_string=True) != IntParameter()
    schema = object_schema({"a": IntParameter(as_string=True, allow_null=True)})
    for value in (str(PAST), "-6", None):
        Draft202012Validator(schema).validate({"a": value})
    assert not Draft202012Validator(schema).is_valid({"a": 6})
