"""Tasks with each type of input, and of output: they give back what they are given."""

from taskapi.exceptions import TaskError
from taskapi.params import (
    BooleanParameter,
    ChoiceParameter,
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
)
from taskapi.tasks import Task

EVERYTHING = {
    "any": Parameter(required=False),
    "boolean": BooleanParameter(required=False),
    "choice": ChoiceParameter(["red", "blue"], required=False),
    "date": DateParameter(required=False),
    "moment": DateTimeParameter(required=False, allow_null=True),
    "decimal": DecimalParameter(required=False, max_digits=12, decimal_places=2),
    "dict": DictParameter(required=False),
    "email": EmailParameter(required=False),
    "float": FloatParameter(required=False),
    "integer": IntParameter(required=False, as_string=True),
    "json": JSONParameter(required=False),
    "list": ListParameter(StringParameter(), required=False, max_length=5),
    "number": NumberParameter(required=False, min_value=-10, max_value=10),
    "string": StringParameter(default="…", max_length=100),
    "url": URLParameter(required=False),
    "uuid": UUIDParameter(required=False),
}


class Everything(Task):
    """Give back all inputs, as a message too."""

    name = "everything"
    inputs = EVERYTHING
    outputs = {"given": JSONParameter()}

    def run(self, **inputs):
        given = {name: EVERYTHING[name].to_json(value) for name, value in inputs.items()}
        self.add_message(given)
        return given


class Nothing(Task):
    """Take and return nothing, under a name that is no word."""

    name = "no/thing ✓"

    def run(self):
        pass


class Talk(Task):
    """Say some things, with progress."""

    name = "talk"
    inputs = {"n": IntParameter(min_value=0, max_value=20)}

    def run(self, n):
        for number in self.track(range(n)):
            self.add_message(number)


class Refuse(Task):
    """Fail with a message for the caller."""

    name = "refuse"
    inputs = {"why": StringParameter()}

    def run(self, why):
        raise TaskError(why)
