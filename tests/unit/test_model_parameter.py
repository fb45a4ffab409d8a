"""ModelParameter: rows of the project's own models, for the user who names them."""

from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, models
from django.test.utils import CaptureQueriesContext, isolate_apps
from jsonschema import Draft202012Validator
from rest_framework.exceptions import ValidationError

from taskapi.engines import immediate
from taskapi.exceptions import InvalidInputs
from taskapi.models import TaskInfo
from taskapi.params import (
    ConversionContext,
    DictParameter,
    JSONParameter,
    ListParameter,
    ModelParameter,
    parse_inputs,
)
from taskapi.tasks import Task
from taskapi.testing import arun_task, run_task

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue", "memory_layer")]


def groups_of(user: Any) -> Any:
    return Group.objects.none() if user is None else user.groups


class Greet(Task):
    """Greet a group that the user is in."""

    name = "greet"
    inputs = {"group": ModelParameter(groups_of, field="name")}
    outputs = {"seen": JSONParameter()}

    def run(self, group: Group) -> Any:
        return {"pk": group.pk, "kind": type(group).__name__}


class AsyncGreet(Greet):
    name = "async_greet"

    async def run(self, group: Group) -> Any:
        return super().run(group)


class Each(Task):
    name = "each"
    inputs = {"users": ListParameter(ModelParameter(User))}
    outputs = {"names": JSONParameter(), "last": ModelParameter(User, field="username")}

    def run(self, users: list[User]) -> Any:
        return {"names": [user.username for user in users], "last": users[-1]}


@pytest.fixture(autouse=True)
def registered(settings: Any) -> None:
    settings.TASK_API_BACKGROUND_TASKS = [Greet, AsyncGreet, Each]


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann")


def read(parameter: ModelParameter, value: Any, user: Any = None) -> Any:
    return parse_inputs({"row": parameter}, {"row": value}, ConversionContext(user))["row"]


def refusal(parameter: ModelParameter, value: Any, user: Any = None) -> str:
    with pytest.raises(ValidationError) as refused:
        read(parameter, value, user)
    (sentence,) = refused.value.detail["row"]  # type: ignore[index, call-overload]
    return str(sentence)


@pytest.mark.parametrize(
    "source", [User, User.objects, User.objects.all(), lambda user: User, lambda user: User.objects]
)
def test_a_row_is_named_by_its_primary_key(source: Any, ann: User) -> None:
    for value in (ann.pk, str(ann.pk), ann):
        assert read(ModelParameter(source), value) == ann
    assert ModelParameter(source).to_json(ann) == ann.pk
    assert ModelParameter(source).to_json(str(ann.pk)) == ann.pk


def test_a_row_is_named_by_another_field(ann: User) -> None:
    parameter = ModelParameter(User, field="username")
    assert read(parameter, "ann") == ann
    assert read(parameter, ann) == ann
    assert parameter.to_json(ann) == "ann"
    assert refusal(parameter, "bob") == "There is no user with the username bob."


@pytest.mark.parametrize(
    "value", ["x", "", " ", "1.5", 1.5, -1, 0, 2**63, -(2**63) - 1, 10**400, "9" * 5000, "1e3", float("1e300"), "٣"]
)
def test_what_can_be_no_key_is_not_found_in_the_same_words(value: Any, ann: User) -> None:
    assert refusal(ModelParameter(User), value).startswith("There is no user with the pk ")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (True, "Expected the pk of a user. Got bool."),
        ([1], "Expected the pk of a user. Got list."),
        ({}, "Expected the pk of a user. Got dict."),
        ("1\0", "Null characters are not allowed."),
        ("\ud800", "Surrogate characters are not allowed: U+D800."),
        (None, "This field may not be null."),
        (Group(), "Expected a user. Got a group."),
    ],
)
def test_what_is_no_value_of_a_key_is_refused_in_words(value: Any, sentence: str, ann: User) -> None:
    assert refusal(ModelParameter(User), value) == sentence


def test_an_instance_that_is_not_saved_is_not_found() -> None:
    assert refusal(ModelParameter(User), User(username="x")) == "There is no user with the pk None."


def test_null_may_be_allowed(ann: User) -> None:
    parameter = ModelParameter(User, allow_null=True)
    assert read(parameter, None) is None
    assert parameter.to_json(None) is None
    assert Draft202012Validator(parameter.json_schema()).is_valid(None)


def test_what_the_user_may_not_see_is_not_found_in_the_same_words(ann: User) -> None:
    mine, theirs = Group.objects.create(name="mine"), Group.objects.create(name="theirs")
    ann.groups.add(mine)
    parameter = Greet.inputs["group"]
    assert read(parameter, "mine", ann) == mine
    said = {
        refusal(parameter, name, user).replace(name, "NAME")
        for name, user in [("theirs", ann), ("nowhere", ann), ("mine", None), ("nowhere", None)]
    }
    assert said == {"There is no group with the name NAME."}
    assert refusal(parameter, theirs, ann).startswith("There is no group")


def test_a_field_whose_values_repeat_is_refused(ann: User) -> None:
    for name in ("a", "b"):
        User.objects.create_user(name, first_name="Zoë")
    assert refusal(ModelParameter(User, field="first_name"), "Zoë") == (
        "There is more than one user with the first_name Zoë."
    )


def test_a_queryset_that_finds_a_row_twice_finds_it_once(ann: User) -> None:
    for name in ("a", "b"):
        ann.groups.add(Group.objects.create(name=name))
    assert read(ModelParameter(User.objects.filter(groups__name__in=["a", "b"])), ann.pk) == ann


def test_a_list_is_looked_up_in_one_query(ann: User) -> None:
    users = [ann, *(User.objects.create_user(str(n)) for n in range(20))]
    spec = {"rows": ListParameter(ModelParameter(User))}
    with CaptureQueriesContext(connection) as queries:
        assert parse_inputs(spec, {"rows": [user.pk for user in users]})["rows"] == users
    assert len(queries) == 1
    with pytest.raises(ValidationError) as refused:
        parse_inputs(spec, {"rows": [ann.pk, 0, "x", [1]]})
    assert refused.value.detail == {
        "rows": [
            "Item 1: There is no user with the pk 0.",
            "Item 2: There is no user with the pk x.",
            "Item 3: Expected the pk of a user. Got list.",
        ]
    }
    with CaptureQueriesContext(connection) as queries:
        many = parse_inputs(spec, {"rows": [user.pk for user in users] * 100})["rows"]
        assert len(parse_inputs({"rows": DictParameter(ModelParameter(User))}, {"rows": {"a": ann.pk}})["rows"]) == 1
    assert len(queries) == 2
    assert len(many) == 2100


def test_a_queryset_is_asked_anew_each_time(ann: User) -> None:
    parameter = ModelParameter(User.objects.filter(is_active=True))
    assert read(parameter, ann.pk) == ann
    User.objects.update(is_active=False)
    assert refusal(parameter, ann.pk) == f"There is no user with the pk {ann.pk}."


@pytest.mark.parametrize("task", [Greet, AsyncGreet])
async def test_run_gets_the_row_as_it_is_then(task: type[Task], ann: User) -> None:
    group = await Group.objects.acreate(name="mine")
    await ann.groups.aadd(group)
    ended = await arun_task(task, {"group": "mine"}, user=ann)
    assert ended.outputs == {"seen": {"pk": group.pk, "kind": "Group"}}
    started = await task.astart({"group": group}, user=ann)
    assert started.inputs == {"group": "mine"}


def test_outputs_have_the_value_of_the_field(ann: User) -> None:
    run = run_task(Each, {"users": [ann.pk, ann]})
    assert run.outputs == {"names": ["ann", "ann"], "last": "ann"}
    assert run.info.inputs == {"users": [ann.pk, ann.pk]}


@pytest.mark.parametrize("how", ["deleted", "hidden"])
def test_a_row_that_is_gone_fails_the_run_in_words(how: str, ann: User) -> None:
    group = Group.objects.create(name="mine")
    ann.groups.add(group)
    info = Greet.start({"group": group}, user=ann)
    if how == "deleted":
        group.delete()
    else:
        ann.groups.clear()
    immediate.execute(info.uuid)
    ended = TaskInfo.objects.get(pk=info.pk)
    gone = "The group with the name mine, which is an input of this run, is not there any more."
    assert (ended.status, ended.error) == ("failed", {"code": "task_error", "message": gone})
    with pytest.raises(InvalidInputs, match="There is no group with the name mine"):
        ended.retry()


def test_a_key_that_is_a_reference_or_a_uuid_is_described_as_what_it_is(ann: User) -> None:
    assert ModelParameter(User).json_schema() == {"type": "integer"}
    assert ModelParameter(User, field="username").json_schema() == {"type": "string"}
    assert ModelParameter(User, field="email").json_schema() == {"type": "string", "format": "email"}
    assert ModelParameter(User, field="date_joined").json_schema() == {"type": "string", "format": "date-time"}
    assert ModelParameter(TaskInfo, field="uuid").json_schema() == {"type": "string", "format": "uuid"}
    assert ModelParameter(lambda user: user.groups).json_schema() == {"type": ["integer", "string"]}
    info = Each.start({"users": []})
    assert read(ModelParameter(TaskInfo, field="uuid"), str(info.uuid)) == info
    assert ModelParameter(TaskInfo, field="uuid").to_json(info) == str(info.uuid)
    assert refusal(ModelParameter(TaskInfo, field="uuid"), str(uuid4())).startswith("There is no run with the uuid ")
    assert refusal(ModelParameter(TaskInfo, field="uuid"), "x") == "There is no run with the uuid x."


def test_to_show_a_parameter_queries_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert repr(ModelParameter(User.objects.all())) == "ModelParameter(User, field='pk')"
        assert repr(ModelParameter(User, field="username")) == "ModelParameter(User, field='username')"
        assert repr(ModelParameter(groups_of)).startswith("ModelParameter(")


@pytest.mark.parametrize("source", [5, "auth.User", None, [User]])
def test_a_parameter_of_no_rows_is_refused(source: Any) -> None:
    with pytest.raises(TypeError, match="ModelParameter takes"):
        ModelParameter(source)


def test_a_slice_is_refused() -> None:
    with pytest.raises(TypeError, match="slice"):
        ModelParameter(User.objects.all()[:5])


def test_a_key_of_several_columns_is_nothing_that_names_a_row() -> None:
    pair = pytest.importorskip("django.db.models.fields.composite").CompositePrimaryKey
    with isolate_apps("tests"):

        class Pair(models.Model):  # noqa: DJ008 - nobody prints it
            pk = pair("first", "second")
            first = models.IntegerField()
            second = models.IntegerField()

            class Meta:
                app_label = "tests"

        assert ModelParameter(Pair).problem() == "the pk of tests.Pair has several columns"
