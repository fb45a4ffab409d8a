"""Tasks are found by the name that clients use."""

import pytest
from django.test import override_settings

from taskapi.exceptions import UnknownTask
from taskapi.tasks import Task, registry
from taskapi.tasks.registry import get_task, load, tasks
from tests.project.tasks import Sum

PATH = "tests.project.tasks.Sum"


class Own(Task):
    name = "own"


def test_an_entry_is_a_dotted_path_or_a_class():
    assert load(PATH) is load(Sum) is Sum


@pytest.mark.parametrize(
    ("entry", "error", "sentence"),
    [
        ("tests.project.tasks.Nothing", ImportError, "Nothing"),
        ("nowhere.Sum", ImportError, "nowhere"),
        ("sum", ImportError, "module path"),
        ("tests.project.tasks.asyncio", TypeError, "subclass of taskapi.tasks.Task"),
        (int, TypeError, "subclass of taskapi.tasks.Task"),
        (Own(), TypeError, "subclass of taskapi.tasks.Task"),
    ],
)
def test_what_is_no_task_is_not_loaded(entry, error, sentence):
    with pytest.raises(error, match=sentence):
        load(entry)


def test_a_task_is_known_by_its_name_while_it_is_registered():
    with override_settings(TASK_API_BACKGROUND_TASKS=[PATH], TASK_API_BACKGROUND_CLASSES=[Own]):
        assert get_task("sum") is Sum
        assert get_task("own") is Own
    with override_settings(TASK_API_BACKGROUND_CLASSES=[]), pytest.raises(UnknownTask):
        get_task("own")


def test_settings_that_change_while_tasks_are_loaded_are_followed(settings, monkeypatch):
    def load_late(entry):
        settings.TASK_API_BACKGROUND_TASKS = [Own]  # as another thread would
        return load(entry)

    monkeypatch.setattr(registry, "load", load_late)
    settings.TASK_API_BACKGROUND_TASKS = [Sum]
    tasks()
    assert list(tasks()) == ["own"]


@pytest.mark.parametrize("name", ["nothing", "", None, 7])
def test_a_name_that_nobody_has_is_an_unknown_task(name):
    with pytest.raises(UnknownTask) as caught:
        get_task(name)
    assert str(caught.value) == f"There is no task named {name!r}."
    assert caught.value.name == name


def test_tasks_are_loaded_once():
    assert tasks() is tasks()
