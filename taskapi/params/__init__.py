"""The types of a task's inputs and outputs: JSON to Python on the way in, Python to JSON on the way out."""

from taskapi.params.base import FieldParameter, Parameter
from taskapi.params.choices import BooleanParameter, ChoiceParameter
from taskapi.params.containers import DictParameter, JSONParameter, ListParameter
from taskapi.params.context import ConversionContext, current_context
from taskapi.params.files import NO_SUCH_UPLOAD, FileParameter
from taskapi.params.models import ModelParameter
from taskapi.params.numeric import DecimalParameter, FloatParameter, IntParameter, NumberParameter
from taskapi.params.spec import dump_outputs, dump_values, is_given, misfit, object_schema, parse_inputs
from taskapi.params.text import EmailParameter, StringParameter, URLParameter, UUIDParameter
from taskapi.params.times import DateParameter, DateTimeParameter
from taskapi.params.values import errors_by_name

__all__ = [
    "NO_SUCH_UPLOAD",
    "BooleanParameter",
    "ChoiceParameter",
    "ConversionContext",
    "DateParameter",
    "DateTimeParameter",
    "DecimalParameter",
    "DictParameter",
    "EmailParameter",
    "FieldParameter",
    "FileParameter",
    "FloatParameter",
    "IntParameter",
    "JSONParameter",
    "ListParameter",
    "ModelParameter",
    "NumberParameter",
    "Parameter",
    "StringParameter",
    "URLParameter",
    "UUIDParameter",
    "current_context",
    "dump_outputs",
    "dump_values",
    "errors_by_name",
    "is_given",
    "misfit",
    "object_schema",
    "parse_inputs",
]
