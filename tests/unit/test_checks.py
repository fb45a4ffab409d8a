"""Each check names the setting, what is wrong with it, and the remedy."""

import ast
from datetime import timedelta
from functools import partialmethod, wraps
from pathlib import Path

import django
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.core import checks
from django.core.checks import Error, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection, connections
from django.test import override_settings
from rest_framework.authentication import BasicAuthentication
from rest_framework.permissions import IsAdminUser, IsAuthenticated
from rest_framework.throttling import UserRateThrottle

from taskapi.backends import QueueUnavailable
from taskapi.management.checks.databases import check_postgresql
from taskapi.params import FileParameter, IntParameter, ListParameter, ModelParameter
from taskapi.tasks import Task
from tests.support.backends import ListBackend

IN_MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
PUBSUB = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}


def found(**overridden):
    """The messages of our checks for a project with these settings."""
    with override_settings(**overridden):
        return run_checks(tags=["taskapi"], databases=[])


def the_one(**overridden):
    (message,) = found(**overridden)
    assert message.hint
    return message


def the_one_about(task):
    message = the_one(TASK_API_BACKGROUND_TASKS=[task])
    assert f"{task.__module__}.{task.__qualname__}" in message.msg
    assert message.obj is task
    return message


def test_a_clean_project_has_nothing_to_hear():
    assert found() == []


def test_a_project_that_sets_nothing_hears_that_it_has_no_task():
    message = the_one(TASK_API_BACKGROUND_TASKS=[], CHANNEL_LAYERS={})
    assert (message.id, type(message)) == ("taskapi.W013", checks.Warning)
    assert message.msg == "TASK_API_BACKGROUND_TASKS is empty, so no task can be run."
    assert "TASK_API_BACKGROUND_TASKS = ['myapp.background.MyTask']" in message.hint


def test_a_bad_setting_keeps_a_command_from_starting():
    with override_settings(TASK_API_BACKEND="nowhere.Backend"), pytest.raises(SystemCheckError, match="E010"):
        call_command("check")


# Tasks


class Fine(Task):
    name = "fine"
    inputs = {"a": IntParameter(), "b": IntParameter(required=False), "c": IntParameter(default=1)}

    def run(self, a, c, b=None):
        return a


class Async(Fine):
    async def run(self, c, a, *, b=None):
        return a


class Anything(Fine):
    def run(self, **inputs):
        return inputs


class Static(Fine):
    @staticmethod
    def run(a, c, b=None):
        return a


class ByClass(Fine):
    @classmethod
    def run(cls, a, c, b=None):
        return a


class Wider(Fine):
    def run(self, a, *rest, c, b=None, more=0, **others):
        return a


@pytest.mark.parametrize("task", [Fine, Async, Anything, Static, ByClass, Wider])
def test_a_run_that_fits_its_inputs_is_fine(task):
    assert found(TASK_API_BACKGROUND_TASKS=[task]) == []


@pytest.mark.parametrize("setting", ["TASK_API_BACKGROUND_TASKS", "TASK_API_BACKGROUND_CLASSES"])
@pytest.mark.parametrize(
    "entry", ["nowhere.Task", "tests.project.tasks.Nothing", "Nothing", int, "tests.project.tasks.time"]
)
def test_an_entry_that_is_no_task(setting, entry):
    message = the_one(**{setting: ["tests.project.tasks.Say", entry]})
    assert (message.id, type(message)) == ("taskapi.E001", Error)
    assert message.msg.startswith(f"{setting}: the entry {entry!r} cannot be used: ")
    assert "dotted path" in message.hint


@pytest.mark.parametrize("setting", ["TASK_API_BACKGROUND_TASKS", "TASK_API_BACKGROUND_CLASSES"])
@pytest.mark.parametrize("value", ["tests.project.tasks.Sum", 5])
def test_tasks_that_are_no_list(setting, value):
    message = the_one(**{setting: value})
    assert (message.id, type(message)) == ("taskapi.E010", Error)
    assert message.msg == f"{setting}: expected a list, got {value!r}."


class Nameless(Task):
    def run(self):
        pass


def test_a_task_without_a_name():
    message = the_one_about(Nameless)
    assert message.id == "taskapi.E002"
    assert "`name`" in message.hint


def test_tasks_without_a_name_are_not_told_that_they_share_it():
    class Other(Nameless):
        pass

    assert [message.id for message in found(TASK_API_BACKGROUND_TASKS=[Nameless, Other])] == ["taskapi.E002"] * 2


def test_two_tasks_with_one_name():
    class Other(Fine):
        pass

    message = the_one(TASK_API_BACKGROUND_TASKS=[Fine], TASK_API_BACKGROUND_CLASSES=[Other])
    assert message.id == "taskapi.E003"
    assert "TASK_API_BACKGROUND_CLASSES" in message.msg
    assert "'fine'" in message.msg
    assert all(f"{__name__}.{task.__qualname__}" in message.msg for task in (Fine, Other))


def test_one_task_that_is_registered_twice_is_one():
    assert found(TASK_API_BACKGROUND_TASKS=[Fine, f"{__name__}.Fine"]) == []


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize("spec", [["a"], {"a": IntParameter}, {"a": "int"}, None])
def test_a_task_whose_parameters_are_none(kind, spec):
    message = the_one_about(type("Odd", (Fine,), {"run": lambda self, **inputs: 1, kind: spec}))
    assert message.id == "taskapi.E004"
    assert f"`{kind}`" in message.msg
    assert f"`{kind} = {{" in message.hint


def plainly(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def awaiting(function):
    @wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


async def async_run(self):
    pass


def generator_run(self):
    yield


async def async_generator_run(self):
    yield


@pytest.mark.parametrize("run", [generator_run, async_generator_run])
def test_a_run_that_is_a_generator(run):
    message = the_one_about(type("Made", (Task,), {"name": "made", "run": run}))
    assert (message.id, type(message)) == ("taskapi.E008", Error)
    assert "add_message" in message.hint


@pytest.mark.parametrize("run", [plainly(async_run), plainly(awaiting(async_run))])
def test_an_async_run_under_a_decorator_that_is_not(run):
    message = the_one_about(type("Made", (Task,), {"name": "made", "run": run}))
    assert (message.id, type(message)) == ("taskapi.W008", checks.Warning)
    assert "async def" in message.hint


def consuming(function):
    @wraps(function)
    def wrapper(self):
        return list(function(self))

    return wrapper


@pytest.mark.parametrize(
    "run",
    [
        async_run,
        awaiting(async_run),
        awaiting(plainly(async_run)),
        async_to_sync(async_run),
        plainly(lambda self: None),
        sync_to_async(lambda self: None),
        partialmethod(async_run),
        consuming(generator_run),
    ],
)
def test_a_decorator_that_has_the_work_done_is_fine(run):
    assert found(TASK_API_BACKGROUND_TASKS=[type("Made", (Task,), {"name": "made", "run": run})]) == []


def test_a_task_without_run():
    class Idle(Task):
        name = "idle"
        inputs = {"a": IntParameter(), "b": IntParameter(required=False)}

    message = the_one_about(Idle)
    assert message.id == "taskapi.E005"
    assert message.hint == "Write `def run(self, a, b=None):`."


def unfit(run):
    return type("Unfit", (Fine,), {"run": run})


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (lambda self, a, c: 1, "it does not accept the input 'b'"),
        (lambda self, a, b, c: 1, "the input 'b' is optional, and `run` has no default for it"),
        (lambda self, a, d, c, b=None: 1, "it needs the argument 'd', which is not an input"),
        (lambda self, a, /, c, b=None: 1, "it does not accept the input 'a'"),
        (lambda self, *inputs, c, b=None: 1, "it does not accept the input 'a'"),
        (staticmethod(lambda self, a, c, b=None: 1), "it needs the argument 'self', which is not an input"),
    ],
)
def test_a_run_that_does_not_fit_its_inputs(run, problem):
    message = the_one_about(unfit(run))
    assert message.id == "taskapi.E006"
    assert problem in message.msg
    assert message.hint == "Write `def run(self, a, b=None, c=None):`."


def test_everything_that_is_wrong_with_a_run_is_said():
    messages = found(TASK_API_BACKGROUND_TASKS=[unfit(lambda self, b, d: 1)])
    assert [message.id for message in messages] == ["taskapi.E006"] * 4  # a, b, c and d


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", ""),
        ("queue", None),
        ("timeout", 0),
        ("timeout", "60"),
        ("timeout", timedelta(seconds=60)),
        ("max_attempts", 0),
        ("max_attempts", None),
        ("max_attempts", 2.5),
        ("retry_on", ConnectionError),
        ("retry_on", [ConnectionError]),
        ("retry_on", (KeyboardInterrupt,)),
        ("retry_delay", -1),
        ("retry_delay", None),
        ("retain", -1),
        ("retain", timedelta(seconds=-1)),
        ("retain", "a week"),
        ("isolation", "thread"),
        ("isolation", True),
    ],
)
def test_an_attribute_that_cannot_be_used(name, value):
    message = the_one_about(type("Odd", (Fine,), {name: value}))
    assert message.id == "taskapi.E007"
    assert f"The `{name}` of the task" in message.msg
    assert message.msg.endswith(f"is {value!r}.")
    assert message.hint.startswith("Give ")


def test_attributes_that_can_be_used():
    others = {
        "queue": "slow",
        "timeout": 0.5,
        "max_attempts": 1,
        "retry_on": (ConnectionError, OSError),
        "retry_delay": 0,
        "isolation": "process",
    }
    for retain in (None, 0, 3600.5, timedelta(days=1)):
        assert found(TASK_API_BACKGROUND_TASKS=[type("Other", (Fine,), others | {"retain": retain})]) == []


# Settings


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("TASK_API_BACKEND", "nowhere.Backend", "cannot be imported"),
        ("TASK_API_BACKEND", "taskapi.backends.arq.Nothing", "cannot be imported"),
        ("TASK_API_BACKEND", 5, "cannot be imported"),
        ("TASK_API_BACKEND", "builtins.int", "not a subclass of taskapi.backends.Backend"),
        ("TASK_API_AUTHENTICATION_CLASSES", 5, "expected a list"),
        ("TASK_API_AUTHENTICATION_CLASSES", "rest_framework.authentication.BasicAuthentication", "expected a list"),
        ("TASK_API_AUTHENTICATION_CLASSES", ["nowhere.Authentication"], "cannot be imported"),
        ("TASK_API_AUTHENTICATION_CLASSES", [IsAdminUser], "not a subclass of BaseAuthentication"),
        ("TASK_API_AUTHENTICATION_CLASSES", [BasicAuthentication()], "not a subclass of BaseAuthentication"),
        ("TASK_API_PERMISSIONS_CLASSES", ["rest_framework.permissions.Nothing"], "cannot be imported"),
        ("TASK_API_PERMISSIONS_CLASSES", [BasicAuthentication], "not a subclass of BasePermission"),
        ("TASK_API_THROTTLE_CLASSES", UserRateThrottle, "expected a list"),
        ("TASK_API_THROTTLE_CLASSES", [IsAdminUser], "not a subclass of BaseThrottle"),
        ("TASK_API_REDIS_URL", "127.0.0.1:6379", "begins with one of"),
        ("TASK_API_REDIS_URL", 6379, "expected an address"),
        ("TASK_API_REDIS_PREFIX", "", "expected a short name"),
        ("TASK_API_REDIS_PREFIX", "my site", "expected a short name"),
        ("TASK_API_REDIS_PREFIX", "x" * 51, "expected a short name"),
        ("TASK_API_REDIS_PREFIX", "site:staging", "expected a short name"),
        ("TASK_API_REDIS_PREFIX", "straße", "expected a short name"),
        ("TASK_API_REDIS_PREFIX", 7, "expected a short name"),
        ("TASK_API_REDIS_URL", "sentinel://one", "sentinel://host:port"),
        ("TASK_API_EVENT_INTERVAL", "0.05", "expected seconds"),
        ("TASK_API_EVENT_INTERVAL", -1, "expected seconds"),
        ("TASK_API_EVENT_INTERVAL", float("nan"), "expected seconds"),
        ("TASK_API_EVENT_INTERVAL", float("inf"), "expected seconds"),
        ("TASK_API_EVENT_INTERVAL", True, "expected seconds"),
        ("TASK_API_RETENTION", "7 days", "expected seconds, a timedelta or None"),
        ("TASK_API_RETENTION", -1, "expected seconds, a timedelta or None"),
        ("TASK_API_LIMITS", 5, "expected a dict"),
        ("TASK_API_LIMITS", [("sent_frame_bytes", 5000)], "expected a dict"),
        ("TASK_API_LIMITS", {"sent_frame_byte": 2**20}, "there is no limit named 'sent_frame_byte'"),
        ("TASK_API_LIMITS", {5: 5}, "there is no limit named 5"),
        ("TASK_API_LIMITS", {"sent_frame_bytes": 4095}, "4096 or more, got 4095"),
        ("TASK_API_LIMITS", {"sent_frame_bytes": "1 MB"}, "4096 or more, got '1 MB'"),
        ("TASK_API_LIMITS", {"sent_frame_bytes": 1e6}, "4096 or more, got 1000000.0"),
        ("TASK_API_LIMITS", {"sent_frame_bytes": True}, "4096 or more, got True"),
        ("TASK_API_LIMITS", {"sent_frame_bytes": None}, "4096 or more, got None"),
    ],
)
def test_a_bad_value(setting, value, problem):
    message = the_one(**{setting: value})
    assert (message.id, type(message)) == ("taskapi.E010", Error)
    assert message.msg.startswith(f"{setting}: ")
    assert problem in message.msg


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("TASK_API_BACKEND", "tests.support.backends.ListBackend"),
        ("TASK_API_AUTHENTICATION_CLASSES", []),
        ("TASK_API_AUTHENTICATION_CLASSES", (BasicAuthentication,)),
        ("TASK_API_AUTHENTICATION_CLASSES", None),
        ("TASK_API_PERMISSIONS_CLASSES", ["rest_framework.permissions.IsAdminUser"]),
        ("TASK_API_PERMISSIONS_CLASSES", [IsAdminUser | ~IsAuthenticated, ~IsAdminUser]),
        ("TASK_API_THROTTLE_CLASSES", [UserRateThrottle]),
        ("TASK_API_REDIS_URL", "sentinel://one:1,two:2/mine/3"),
        ("TASK_API_REDIS_URL", "unix:///run/redis.sock"),
        ("TASK_API_REDIS_PREFIX", "mysite-staging_2.1"),
        ("TASK_API_REDIS_PREFIX", "x" * 50),
        ("TASK_API_EVENT_INTERVAL", 0),
        ("TASK_API_EVENT_INTERVAL", 0.5),
        ("TASK_API_RETENTION", None),
        ("TASK_API_RETENTION", 3600),
        ("TASK_API_RETENTION", timedelta(days=1)),
        ("TASK_API_LIMITS", {}),
        ("TASK_API_LIMITS", {"sent_frame_bytes": 4096}),
    ],
)
def test_a_good_value(setting, value):
    assert found(**{setting: value}) == []


@pytest.mark.parametrize(
    "setting",
    [
        "TASK_API_BACKEND",
        "TASK_API_BACKGROUND_CLASSES",
        "TASK_API_REDIS_URL",
        "TASK_API_EVENT_INTERVAL",
        "TASK_API_LIMITS",
        "CHANNEL_LAYERS",
    ],
)
def test_none_is_as_if_it_were_not_set(setting):
    assert found(**{setting: None}) == []


def test_a_list_of_tasks_that_is_none_is_as_if_it_were_empty():
    assert the_one(TASK_API_BACKGROUND_TASKS=None).id == "taskapi.W013"


def test_everything_that_is_wrong_with_the_settings_is_said():
    messages = found(TASK_API_BACKEND="nowhere.Backend", TASK_API_REDIS_URL=5, TASK_API_PERMISSIONS_CLASSES=["x", "y"])
    assert [message.msg.partition(":")[0] for message in messages] == [
        "TASK_API_BACKEND",
        "TASK_API_PERMISSIONS_CLASSES",
        "TASK_API_PERMISSIONS_CLASSES",
        "TASK_API_REDIS_URL",
    ]


def test_a_limit_that_bounds_nothing_yet_is_said_to():
    message = the_one(TASK_API_LIMITS={"messages": 100, "sent_frame_bytes": 2**20, "frames_per_second": 5})
    assert (message.id, type(message)) == ("taskapi.W010", checks.Warning)
    assert "'messages', 'frames_per_second'" in message.msg
    assert "sent_frame_bytes" not in message.msg


# Names of settings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TASK_API_TASKS", "TASK_API_BACKGROUND_TASKS"),
        ("TASK_API_BACKGROUND_TASK", "TASK_API_BACKGROUND_TASKS"),
        ("TASKAPI_BACKGROUND_TASKS", "TASK_API_BACKGROUND_TASKS"),
        ("TASKAPI_TASKS", "TASK_API_BACKGROUND_TASKS"),
        ("TASKS_API_BACKGROUND_TASKS", "TASK_API_BACKGROUND_TASKS"),
        ("DJANGO_TASK_API_BACKGROUND_TASKS", "TASK_API_BACKGROUND_TASKS"),
        ("TASK_API_PERMISSION_CLASSES", "TASK_API_PERMISSIONS_CLASSES"),
        ("TASKAPI_REDIS_URL", "TASK_API_REDIS_URL"),
        ("TASKAPI_BACKENDS", "TASK_API_BACKEND"),
    ],
)
def test_a_misspelt_setting_is_told_the_right_name(name, meant):
    message = the_one(**{name: []})
    assert (message.id, type(message)) == ("taskapi.W002", checks.Warning)
    assert message.msg == f"{name} is not a setting of Django Task API, so it has no effect."
    assert message.hint == f"Did you mean {meant}?"


@pytest.mark.parametrize("name", ["TASK_API", "TASKAPI", "TASK_API_COLOUR"])
def test_a_setting_that_is_like_none_is_told_all_of_them(name):
    assert "TASK_API_BACKGROUND_TASKS, TASK_API_BACKGROUND_CLASSES" in the_one(**{name: {}}).hint


@pytest.mark.parametrize("name", ["BACKGROUND_TASKS", "BACKGROUND_CLASSES", "BACKGROUND_TASK"])
def test_a_list_of_tasks_without_the_prefix(name):
    misspelt, empty = sorted(
        found(**{name: ["tests.project.tasks.Sum"], "TASK_API_BACKGROUND_TASKS": None}), key=lambda m: m.id
    )
    assert (misspelt.id, misspelt.hint) == ("taskapi.W002", "Did you mean TASK_API_BACKGROUND_TASKS?")
    assert empty.id == "taskapi.W013"
    assert found(**{name: ["another package's"]}) == [], "a project with a list of tasks has not misspelt it"


def test_a_setting_of_django_is_not_meant_for_us():
    assert found(TASKS={"default": {}}, TASK_APIARY=1) == []


# Servers


@pytest.fixture
def asgi_of(tmp_path, monkeypatch):
    """The dotted path of an application whose module has this source."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source):
        name = f"asgi_{len(list(tmp_path.iterdir()))}_of_a_test"
        (tmp_path / f"{name}.py").write_text(source)
        return f"{name}.application"

    return write


DJANGOS_OWN = Path(django.__file__).with_name("conf") / "project_template" / "project_name" / "asgi.py-tpl"


@pytest.fixture
def djangos_own(asgi_of):
    return asgi_of(DJANGOS_OWN.read_text().replace("{{ project_name }}", "mysite"))


def test_djangos_own_asgi_serves_no_websocket(djangos_own):
    message = the_one(ASGI_APPLICATION=djangos_own)
    assert (message.id, type(message)) == ("taskapi.W011", checks.Warning)
    assert message.msg.startswith(f"{djangos_own.removesuffix('.application')} is Django's own")
    assert "Import `get_asgi_application` from `taskapi.asgi` instead of `django.core.asgi`" in message.hint


@pytest.mark.parametrize(
    "source",
    [
        "from taskapi.asgi import get_asgi_application\napplication = get_asgi_application()\n",
        "from django.core.asgi import get_asgi_application\nfrom channels.routing import ProtocolTypeRouter\n",
        "from django.core.asgi import get_asgi_application\nfrom mysite.routing import application\n",
        "from django.core.asgi import get_asgi_application\nfrom .routing import application\n",
        "application = None",
        "it is no Python",
    ],
)
def test_an_asgi_that_may_route_websockets_is_not_judged(asgi_of, source):
    assert found(ASGI_APPLICATION=asgi_of(source)) == []


@pytest.mark.parametrize("path", ["nowhere.asgi.application", "application", "", None, 5])
def test_an_asgi_application_that_cannot_be_found_is_not_ours_to_report(path):
    assert found(ASGI_APPLICATION=path) == []


def test_an_asgi_is_not_imported(asgi_of):
    assert found(ASGI_APPLICATION=asgi_of("from django.core.asgi import x\nraise SystemExit"))[0].id == "taskapi.W011"


def test_runserver_without_daphne():
    message = the_one(DEBUG=True)
    assert (message.id, type(message)) == ("taskapi.W012", checks.Warning)
    assert message.msg.startswith("'daphne' is not in INSTALLED_APPS, so `runserver`")
    assert message.hint.startswith("Put 'daphne' first into INSTALLED_APPS.")


def test_runserver_without_asgi_is_a_remark_that_names_how_to_silence_it():
    message = the_one(DEBUG=True, ASGI_APPLICATION=None)
    assert (message.id, type(message)) == ("taskapi.I001", checks.Info)
    assert "ASGI_APPLICATION = 'tests.project.asgi.application'" in message.hint
    assert "SILENCED_SYSTEM_CHECKS = ['taskapi.I001']" in message.hint
    assert "taskapi.asgi" not in message.hint, "this project's asgi.py is right already"


def test_runserver_with_django_as_it_makes_a_project(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "newsite").mkdir()
    (tmp_path / "newsite" / "asgi.py").write_text(DJANGOS_OWN.read_text())
    hint = the_one(DEBUG=True, ASGI_APPLICATION=None, ROOT_URLCONF="newsite.urls").hint
    assert "ASGI_APPLICATION = 'newsite.asgi.application'" in hint
    assert "In newsite.asgi: import `get_asgi_application` from `taskapi.asgi`" in hint


# Workers


class Attended(ListBackend):
    """A queue `fast` that has a worker, and others that have none, are away, or cannot be told."""

    def has_worker(self, queue):
        if queue == "away":
            raise QueueUnavailable("It is away")
        return {"fast": True, "unknown": None}.get(queue, False)


def found_by_deploy(*queues, backend=f"{__name__}.Attended"):
    tasks = [type("Queued", (Task,), {"name": name, "queue": name, "run": lambda self: None}) for name in queues]
    with override_settings(TASK_API_BACKEND=backend, TASK_API_BACKGROUND_TASKS=tasks):
        return run_checks(tags=["taskapi"], include_deployment_checks=True, databases=[])


def test_a_deployment_hears_which_queues_have_no_worker():
    (message,) = found_by_deploy("fast", "slow", "unknown")
    assert (message.id, type(message)) == ("taskapi.W014", checks.Warning)
    assert message.msg == "No worker takes the queue 'slow' now: its runs wait until one does."
    assert message.hint == "Start one: python manage.py taskworker --queue slow"


def test_a_deployment_hears_once_that_the_queue_is_away():
    (message,) = found_by_deploy("away", "slow")
    assert (message.id, type(message)) == ("taskapi.W014", checks.Warning)
    assert "'away', 'slow' could not be found out: It is away." in message.msg


def test_workers_are_asked_for_only_before_a_deployment():
    assert found(TASK_API_BACKEND=f"{__name__}.Attended") == []


def test_a_backend_that_does_not_know_its_workers_has_nothing_to_hear():
    assert found_by_deploy("slow", backend="tests.support.backends.ListBackend") == []


# Channel layer


@pytest.mark.parametrize("alias", ["taskapi", "default"])
def test_a_layer_that_cannot_be_imported(alias):
    message = the_one(CHANNEL_LAYERS={alias: {"BACKEND": "nowhere.Layer"}})
    assert (message.id, type(message)) == ("taskapi.E020", Error)
    assert f"CHANNEL_LAYERS[{alias!r}]" in message.msg
    assert "channels_redis.pubsub.RedisPubSubChannelLayer" in message.hint


@pytest.mark.parametrize("alias", ["taskapi", "default"])
def test_a_layer_in_memory_with_workers_in_other_processes(alias):
    message = the_one(CHANNEL_LAYERS={alias: IN_MEMORY})
    assert (message.id, type(message)) == ("taskapi.E021", Error)
    assert f"CHANNEL_LAYERS[{alias!r}]" in message.msg
    assert "channels_redis.pubsub.RedisPubSubChannelLayer" in message.hint


def test_a_layer_in_memory_is_fine_where_tasks_run_in_the_server(monkeypatch):
    monkeypatch.setattr("tests.support.backends.ListBackend.other_processes", False)
    backend = "tests.support.backends.ListBackend"
    assert found(CHANNEL_LAYERS={"default": IN_MEMORY}, TASK_API_BACKEND=backend) == []


def test_a_backend_that_cannot_be_asked_is_wrong_by_itself_and_the_layer_is_not():
    assert the_one(CHANNEL_LAYERS={"default": IN_MEMORY}, TASK_API_BACKEND="nowhere.B").id == "taskapi.E010"


@pytest.mark.parametrize(
    "layers", [{"taskapi": PUBSUB, "default": IN_MEMORY}, {"default": PUBSUB}, {"other": IN_MEMORY}]
)
def test_only_the_layer_that_events_travel_over_is_looked_at(layers):
    assert found(CHANNEL_LAYERS=layers) == []


# SQLite


SCRATCH = "scratch"


@pytest.fixture
def messages_for(tmp_path, django_db_blocker):
    """The messages about an SQLite database with these OPTIONS."""

    def look(name="", **options):
        scratch = {"NAME": name or tmp_path / "scratch", "OPTIONS": options}
        connections.databases[SCRATCH] = connection.settings_dict | scratch
        with django_db_blocker.unblock():
            messages = run_checks(tags=["database"], databases=[SCRATCH])
        connections[SCRATCH].close()
        del connections[SCRATCH], connections.databases[SCRATCH]
        return [message for message in messages if message.id.startswith("taskapi")]

    return look


@pytest.mark.parametrize(("mode", "timeout"), [("delete", 20), ("wal", 4.999), ("truncate", 0)])
def test_an_sqlite_that_would_lock_its_writers_out(messages_for, mode, timeout):
    (message,) = messages_for(timeout=timeout, init_command=f"PRAGMA journal_mode={mode}")
    assert (message.id, type(message)) == ("taskapi.W001", checks.Warning)
    assert "DATABASES['scratch']" in message.msg
    assert f"journal_mode={mode} and busy_timeout={round(timeout * 1000)} ms" in message.msg


def test_an_sqlite_as_django_makes_it_has_no_wal(messages_for):
    (message,) = messages_for()
    assert "journal_mode=delete and busy_timeout=5000 ms" in message.msg


def test_an_sqlite_that_makes_its_writers_wait_is_fine(messages_for):
    assert messages_for(timeout=5, init_command="PRAGMA journal_mode=WAL", transaction_mode="IMMEDIATE") == []
    assert messages_for(timeout=5, init_command="PRAGMA journal_mode=WAL", transaction_mode="exclusive") == []


@pytest.mark.parametrize("mode", [None, "DEFERRED"])
def test_an_sqlite_whose_transactions_read_before_they_have_their_lock(messages_for, mode):
    (message,) = messages_for(timeout=20, init_command="PRAGMA journal_mode=WAL", transaction_mode=mode)
    assert (message.id, type(message)) == ("taskapi.W001", checks.Warning)
    assert "transactions begin DEFERRED" in message.msg


def test_the_remedy_for_an_sqlite_is_one(messages_for):
    (message,) = messages_for()
    options = ast.literal_eval(message.hint.removeprefix("Set OPTIONS = ").removesuffix("."))
    assert messages_for(**options) == []


def test_a_database_of_one_process_is_not_looked_at(messages_for):
    assert messages_for(name=":memory:") == messages_for(name="file:memorydb?mode=memory") == []


# PostgreSQL


@pytest.fixture
def about_postgres():
    """The messages about a PostgreSQL on that host; no connection is made."""

    def look(host, **options):
        database = {"ENGINE": "django.db.backends.postgresql", "NAME": "any", "HOST": host, "OPTIONS": options}
        connections.databases[SCRATCH] = connection.settings_dict | database
        messages = check_postgresql([SCRATCH])
        del connections[SCRATCH], connections.databases[SCRATCH]
        return messages

    return look


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, "connect_timeout and tcp_user_timeout"),
        ({"connect_timeout": 5}, "tcp_user_timeout"),
        ({"tcp_user_timeout": 10_000}, "connect_timeout"),
    ],
)
def test_a_postgresql_that_would_be_waited_for_after_its_host_has_gone(about_postgres, options, missing):
    (message,) = about_postgres("db.example.com", **options)
    assert (message.id, type(message)) == ("taskapi.W009", checks.Warning)
    assert f"DATABASES['scratch'] is PostgreSQL without {missing}:" in message.msg


def test_the_remedy_for_a_postgresql_is_one(about_postgres):
    (message,) = about_postgres("db.example.com")
    options = ast.literal_eval(message.hint.removeprefix("Add to OPTIONS: ").removesuffix("."))
    assert about_postgres("db.example.com", **options) == []


def test_a_postgresql_that_is_given_up_in_time_is_fine(about_postgres):
    assert about_postgres("db.example.com", connect_timeout=3, keepalives_idle=5) == []
    assert about_postgres("/var/run/postgresql") == about_postgres("") == [], "needs no network"


def test_a_slip_in_the_name_of_a_setting():
    message = the_one(TASK_API_PERMISSION_CLASSES=[IsAdminUser])
    assert (message.id, type(message)) == ("taskapi.W002", checks.Warning)
    assert "TASK_API_PERMISSION_CLASSES" in message.msg
    assert message.hint == "Did you mean TASK_API_PERMISSIONS_CLASSES?"


# Files and rows


class TakesFiles(Fine):
    name = "takes_files"
    inputs = {"files": ListParameter(FileParameter())}

    def run(self, files):
        pass


STORAGES = "django.core.files.storage"


def storage_of(**options):
    return {"default": {"BACKEND": f"{STORAGES}.FileSystemStorage", **options}}


@pytest.mark.parametrize(
    ("overridden", "id_", "said"),
    [
        ({"MEDIA_ROOT": ""}, "taskapi.E022", "MEDIA_ROOT is not set"),
        ({"STORAGES": {}}, "taskapi.E022", "cannot be used"),
        ({"STORAGES": storage_of(BACKEND="nowhere.Storage")}, "taskapi.E022", "cannot be used"),
        ({"STORAGES": storage_of(BACKEND=f"{STORAGES}.Storage")}, "taskapi.E022", "cannot save files"),
        (
            {"STORAGES": storage_of(BACKEND="django.core.files.storage.InMemoryStorage")},
            "taskapi.E023",
            "in the memory",
        ),
    ],
)
def test_files_need_a_storage_that_keeps_them(overridden, id_, said):
    message = the_one(TASK_API_BACKGROUND_TASKS=[TakesFiles], **overridden)
    assert (message.id, said in message.msg) == (id_, True), message
    assert "MEDIA_ROOT" in message.hint
    assert the_one(TASK_API_BACKGROUND_TASKS=[Fine], TASK_API_OFFLOAD_BYTES=1, **overridden).id == id_
    assert found(TASK_API_BACKGROUND_TASKS=[Fine], **overridden) == []


def test_a_storage_for_these_files_alone_is_enough():
    alone = {
        **storage_of(),
        "taskapi": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": "/x"}},
    }
    assert found(TASK_API_BACKGROUND_TASKS=[TakesFiles], MEDIA_ROOT="", STORAGES=alone) == []


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        (ModelParameter(User, field="nickname"), "nickname"),
        (
            ListParameter(ModelParameter(User.objects, field="first_name")),
            "several rows of auth.User may have the same",
        ),
    ],
)
def test_a_row_is_named_by_a_unique_field(parameter, said):
    class Names(Task):
        name = "names"
        inputs = {"row": parameter}

        def run(self, row):
            pass

    message = the_one_about(Names)
    assert message.id == "taskapi.E011"
    assert said in message.msg


@pytest.mark.parametrize(
    "parameter", [ModelParameter(User, field="username"), ModelParameter(lambda user: user.groups)]
)
def test_a_row_that_can_be_found_is_nothing_to_hear_of(parameter):
    class Names(Task):
        name = "names"
        inputs = {"row": parameter}

        def run(self, row):
            pass

    assert found(TASK_API_BACKGROUND_TASKS=[Names]) == []
