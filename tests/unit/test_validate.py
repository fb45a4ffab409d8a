"""A task's own `validate`: called with the converted inputs on every start, before anything is recorded."""

from itertools import count

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.checks import run_checks
from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework.exceptions import PermissionDenied, ValidationError

from taskapi import runs
from taskapi.exceptions import IdempotencyConflict, InvalidInputs
from taskapi.models import TaskInfo
from taskapi.params import (
    DateParameter,
    IntParameter,
    JSONParameter,
    ListParameter,
    Parameter,
    StringParameter,
    current_context,
    parse_inputs,
)
from taskapi.tasks import Task

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue")]

INPUTS = {
    "item": StringParameter(),
    "amount": IntParameter(default=1),
    "note": StringParameter(required=False, min_length=2),
    "tags": ListParameter(StringParameter(), default=["a"]),
    "anything": JSONParameter(default=1),
}


def order(validate, inputs=INPUTS):
    """A task that validates like this; `validate` is called with the inputs and the user."""
    method = classmethod(lambda cls, inputs, *, user: validate(inputs, user))
    return type("Order", (Task,), {"name": "order", "inputs": inputs, "validate": method})


def changed(**values):
    """A task whose `validate` sets these."""
    return order(lambda inputs, user: inputs | values)


def raiser(error):
    def validate(inputs, user):
        raise error

    return validate


def recorded(task, **inputs):
    return task.start({"item": "pen"} | inputs).inputs


def refused(task, inputs=None, **options):
    with pytest.raises(InvalidInputs) as caught:
        task.start(inputs or {"item": "pen"}, **options)
    return caught.value.detail


# What it is called with


def test_it_is_called_with_what_run_would_get():
    seen = []
    task = order(lambda inputs, user: seen.append(dict(inputs)) or inputs)
    task.start({"item": 5, "amount": "2"})
    assert seen == [{"item": "5", "amount": 2, "tags": ["a"], "anything": 1}]


@pytest.mark.parametrize("nobody", [None, AnonymousUser()])
def test_it_is_told_who_starts_the_run_and_none_is_nobody(nobody):
    seen = []
    task = order(lambda inputs, user: seen.append(user) or inputs)
    ann = User.objects.create(username="ann")
    for user in (ann, nobody):
        task.start({"item": "pen"}, user=user)
    assert seen == [ann, None]


def test_it_is_not_called_with_inputs_that_do_not_convert():
    task = order(raiser(RuntimeError("It was called.")))
    assert list(refused(task, {"item": "pen", "amount": "x"})) == ["amount"]


def test_parameters_know_for_whom_they_convert_where_a_run_is_accepted_and_where_it_is_retried(settings):
    seen = []

    class Own(Parameter):
        def to_python(self, value):
            seen.append(("to_python", current_context().user, current_context().run))
            return value

        def to_json(self, value):
            seen.append(("to_json", current_context().user, current_context().build_absolute_uri("/a/")))
            return value

    ann = User.objects.create(username="ann")
    task = order(lambda inputs, user: inputs, {"item": Own()})
    settings.TASK_API_BACKGROUND_TASKS = [task]
    info = runs.submit(task, {"item": 1}, user=ann, build_absolute_uri="http://example.com{}".format).info
    url = "http://example.com/a/"
    assert seen == [("to_python", ann, None), ("to_json", ann, url), ("to_json", ann, url)]
    seen.clear()
    TaskInfo.objects.update(status="failed")
    info.retry()
    assert seen == [("to_python", ann, None), ("to_json", ann, "/a/")]


# What it returns


def test_what_it_returns_is_recorded_as_json():
    task = order(lambda inputs, user: inputs | {"day": inputs["day"].replace(day=1)}, {"day": DateParameter()})
    info = task.start({"day": "2024-02-29"})
    assert info.inputs == TaskInfo.objects.get().inputs == {"day": "2024-02-01"}
    assert parse_inputs(task.inputs, info.inputs)["day"].isoformat() == "2024-02-01"


def test_a_default_is_recorded_only_where_it_was_given_or_changed():
    assert recorded(changed()) == {"item": "pen"}
    assert recorded(changed(), amount=1) == {"item": "pen", "amount": 1}
    assert recorded(changed(amount=2)) == {"item": "pen", "amount": 2}
    assert recorded(changed(anything=True)) == {"item": "pen", "anything": True}, "in Python, True equals the default 1"
    assert recorded(changed(note="hello")) == {"item": "pen", "note": "hello"}


def test_what_it_changes_in_place_is_recorded():
    def validate(inputs, user):
        inputs["tags"].append("b")
        del inputs["anything"]
        return inputs

    for _ in range(2):
        assert recorded(order(validate)) == {"item": "pen", "tags": ["a", "b"]}


def test_none_leaves_an_input_out_that_may_be_left_out():
    assert recorded(changed(note=None, amount=None), note="hello", amount=3) == {"item": "pen"}


def test_a_default_that_is_another_each_time_is_recorded_as_it_is_returned():
    numbers = count()
    inputs = {"number": IntParameter(default=lambda: next(numbers))}
    assert order(lambda inputs, user: inputs, inputs).start().inputs == {"number": 0}
    assert order(lambda inputs, user: {"number": 10 * inputs["number"]}, inputs).start().inputs == {"number": 10}


def test_what_it_returns_has_to_fit_the_parameters():
    assert list(refused(changed(amount="x", note="n"))) == ["amount", "note"]
    assert list(refused(order(lambda inputs, user: {}))) == ["item"]
    assert not TaskInfo.objects.exists()


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (None, r"Order.validate\(\) has to return the inputs to use, as a dict; it returned None."),
        (["pen"], r"it returned \['pen'\]"),
        ({"item": "pen", "owner": 1}, r"Order.validate\(\) returned 'owner', which the `inputs`"),
    ],
)
def test_a_slip_of_the_author_is_no_fault_of_the_caller(returned, sentence):
    with pytest.raises(TypeError, match=sentence):
        order(lambda inputs, user: returned).start({"item": "pen"})
    assert not TaskInfo.objects.exists()


def test_a_static_method_does_as_well():
    class Static(Task):
        name = "static"
        inputs = INPUTS

        @staticmethod
        def validate(inputs, *, user):
            return inputs | {"amount": 7}

    assert recorded(Static) == {"item": "pen", "amount": 7}


def test_a_task_that_validates_nothing_converts_once():
    converted = []

    class Once(IntParameter):
        def to_json(self, value):
            converted.append(value)
            return super().to_json(value)

    class Plain(Task):
        name = "plain"
        inputs = {"a": Once()}

    assert Plain.start({"a": 1}).inputs == {"a": 1}
    assert converted == [1]


# How it refuses


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (ValidationError("No."), {"non_field_errors": ["No."]}),
        (ValidationError(["No.", "Never."]), {"non_field_errors": ["No.", "Never."]}),
        (
            ValidationError({"amount": ["Too many."], "item": "None left."}),
            {"amount": ["Too many."], "item": ["None left."]},
        ),
        (ValidationError({"amount": {"0": ["Too many."]}}), {"amount": ["0: Too many."]}),
        (ValidationError({"captcha": "Wrong."}), {"captcha": ["Wrong."]}),
        (DjangoValidationError("No."), {"non_field_errors": ["No."]}),
        (DjangoValidationError(["No.", "Never."]), {"non_field_errors": ["No.", "Never."]}),
        (DjangoValidationError("At most %(n)s.", params={"n": 3}), {"non_field_errors": ["At most 3."]}),
        (DjangoValidationError({"amount": "Too many."}), {"amount": ["Too many."]}),
        (
            DjangoValidationError(
                {NON_FIELD_ERRORS: ["No."], "amount": [DjangoValidationError("%(n)s?", params={"n": 3})]}
            ),
            {"non_field_errors": ["No."], "amount": ["3?"]},
        ),
    ],
    ids=repr,
)
def test_a_validation_error_is_told_by_name_and_leaves_no_row(error, detail, queue):
    task = order(raiser(error))
    assert refused(task, idempotency_key="k") == detail
    assert not TaskInfo.objects.exists()
    assert queue.jobs == []
    assert changed().start({"item": "pen"}, idempotency_key="k") == TaskInfo.objects.get(), "the key is still free"


@pytest.mark.parametrize("kind", [ValidationError, DjangoValidationError])
def test_the_codes_of_its_sentences_are_kept(kind):
    detail = refused(order(raiser(kind("No.", code="sold_out"))))
    assert [sentence.code for sentence in detail["non_field_errors"]] == ["sold_out"]


@pytest.mark.parametrize("error", [RuntimeError("No."), PermissionDenied(), InvalidInputs({"item": ["No."]})], ids=repr)
def test_an_exception_of_another_kind_goes_up_as_it_is(error):
    with pytest.raises(type(error)) as caught:
        order(raiser(error)).start({"item": "pen"})
    assert caught.value is error
    assert not TaskInfo.objects.exists()


# On every road


@pytest.mark.django_db(transaction=True)
async def test_it_may_query_the_database_when_a_run_is_started_from_async_code():
    task = order(lambda inputs, user: inputs | {"amount": User.objects.count()})
    assert (await task.astart({"item": "pen"})).inputs == {"item": "pen", "amount": 0}


def test_a_retry_has_the_same_inputs_and_may_be_refused(settings):
    task = order(lambda inputs, user: inputs | {"item": inputs["item"] + "!"})
    settings.TASK_API_BACKGROUND_TASKS = [task]
    info = task.start({"item": "pen"})
    TaskInfo.objects.update(status="succeeded")
    assert info.retry().inputs == info.inputs == {"item": "pen!"}
    settings.TASK_API_BACKGROUND_TASKS = [order(raiser(ValidationError("No.")))]
    with pytest.raises(InvalidInputs):
        info.retry()


def test_a_default_that_is_made_for_the_run_is_recorded_though_validate_leaves_it_out():
    numbers = count(5)

    class Draw(Task):
        name = "draw"
        inputs = {"ticket": IntParameter(default=lambda: next(numbers)), "note": StringParameter(required=False)}

        @classmethod
        def validate(cls, inputs, *, user):
            return {"note": "checked"}

    assert Draw.start({}).inputs == {"ticket": 5, "note": "checked"}


def test_parameters_that_validate_uses_itself_convert_for_the_same_user():
    seen = []
    ann = User.objects.create(username="ann")
    order(lambda inputs, user: seen.append(current_context().user) or inputs).start({"item": "pen"}, user=ann)
    assert seen == [ann]


# Idempotency keys


def test_a_key_stands_for_the_inputs_as_they_were_given():
    numbers = count(5)
    task = order(lambda inputs, user: inputs | {"amount": next(numbers)})
    first = task.start({"item": "pen"}, idempotency_key="k")
    assert task.start({"item": "pen"}, idempotency_key="k") == first
    assert (first.inputs["amount"], next(numbers)) == (5, 7)
    with pytest.raises(IdempotencyConflict):
        task.start({"item": "pen", "amount": 5}, idempotency_key="k")


def test_a_used_key_gives_its_run_though_validate_refuses_the_inputs_by_now(queue):
    first = changed().start({"item": "pen"}, idempotency_key="k")
    task = order(raiser(ValidationError("Sold out.")))
    assert runs.submit(task, {"item": "pen"}, idempotency_key="k") == (first, False)
    for inputs, key in (({"item": "pen", "amount": 2}, "k"), ({"item": "pen"}, "other"), ({"item": "pen"}, None)):
        assert refused(task, inputs, idempotency_key=key) == {"non_field_errors": ["Sold out."]}
    assert TaskInfo.objects.count() == 1


def test_without_a_key_a_refusal_costs_no_query(django_assert_num_queries):
    with django_assert_num_queries(0):
        refused(order(raiser(ValidationError("No."))))


# The system check


class Fine(Task):
    name = "fine"

    def run(self):
        pass


def instance_method(self, inputs, *, user):
    return inputs


@classmethod
def without_user(cls, inputs):
    return inputs


@classmethod
async def async_validate(cls, inputs, *, user):
    return inputs


@pytest.mark.parametrize("validate", [instance_method, without_user, async_validate, None])
def test_a_validate_that_cannot_be_called_is_found_at_start(settings, validate):
    task = type("Odd", (Fine,), {"validate": validate})
    settings.TASK_API_BACKGROUND_TASKS = [task]
    (message,) = run_checks(tags=["taskapi"], databases=[])
    assert (message.id, message.obj) == ("taskapi.E009", task)
    assert "@classmethod" in message.hint


@pytest.mark.parametrize(
    "validate",
    [classmethod(lambda cls, inputs, *, user: inputs), staticmethod(lambda inputs, user, more=1: inputs)],
)
def test_a_validate_that_can_be_called_is_fine(settings, validate):
    settings.TASK_API_BACKGROUND_TASKS = [type("Even", (Fine,), {"validate": validate})]
    assert run_checks(tags=["taskapi"], databases=[]) == []
