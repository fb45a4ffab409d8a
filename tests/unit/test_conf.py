"""Each setting is read when it is used: it has a default, and `override_settings` works."""

from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.test import override_settings
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.permissions import AllowAny, IsAdminUser
from rest_framework.throttling import UserRateThrottle

from taskapi.backends import get_backend
from taskapi.backends.arq import ArqBackend
from taskapi.conf import settings as taskapi_settings
from taskapi.events import channel_layer
from tests.support.backends import ListBackend

OWN_LAYER = {"BACKEND": "channels.layers.InMemoryChannelLayer"}


def test_what_a_project_gets_that_sets_nothing(settings, monkeypatch):
    for name in [name for name in dir(django_settings) if name.startswith("TASK_API_")]:
        delattr(settings, name)
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert taskapi_settings.backend == "taskapi.backends.arq.ArqBackend"
    assert taskapi_settings.background_tasks == ()
    assert taskapi_settings.authentication_classes == [SessionAuthentication, BasicAuthentication]
    assert taskapi_settings.permissions_classes == [AllowAny]
    assert taskapi_settings.throttle_classes == []
    assert taskapi_settings.redis_url == "redis://127.0.0.1:6379/0"
    assert taskapi_settings.event_interval == 0.05
    assert taskapi_settings.retention == timedelta(days=7)
    assert taskapi_settings.channel_layer_alias() is None


@pytest.mark.parametrize(
    ("setting", "name", "value", "read"),
    [
        ("TASK_API_BACKEND", "backend", "a.B", "a.B"),
        ("TASK_API_EVENT_INTERVAL", "event_interval", 1, 1.0),
        ("TASK_API_LIMITS", "sent_frame_bytes", {"sent_frame_bytes": 5000}, 5000),
        ("TASK_API_LIMITS", "sent_frame_bytes", {}, 1024 * 1024),
        ("TASK_API_RETENTION", "retention", None, None),
        ("TASK_API_RETENTION", "retention", 60, timedelta(seconds=60)),
        ("TASK_API_AUTHENTICATION_CLASSES", "authentication_classes", [], []),
        (
            "TASK_API_AUTHENTICATION_CLASSES",
            "authentication_classes",
            ["rest_framework.authentication.BasicAuthentication", SessionAuthentication],
            [BasicAuthentication, SessionAuthentication],
        ),
        ("TASK_API_PERMISSIONS_CLASSES", "permissions_classes", (IsAdminUser,), [IsAdminUser]),
        ("TASK_API_THROTTLE_CLASSES", "throttle_classes", [UserRateThrottle], [UserRateThrottle]),
    ],
)
def test_a_setting_is_followed_while_it_is_overridden(setting, name, value, read):
    before = getattr(taskapi_settings, name)
    with override_settings(**{setting: value}):
        assert getattr(taskapi_settings, name) == read
    assert getattr(taskapi_settings, name) == before


@pytest.mark.parametrize("name", ["EVENT_INTERVAL", "LIMITS", "REDIS_PREFIX"])
def test_a_setting_that_is_kept_can_be_overridden_and_deleted(name):
    read = {"EVENT_INTERVAL": "event_interval", "LIMITS": "sent_frame_bytes", "REDIS_PREFIX": "redis_prefix"}[name]
    kept = getattr(taskapi_settings, read)
    value = {"EVENT_INTERVAL": 9, "LIMITS": {"sent_frame_bytes": 9000}, "REDIS_PREFIX": "other"}[name]
    with override_settings(**{f"TASK_API_{name}": value}):
        assert getattr(taskapi_settings, read) != kept
        delattr(django_settings, f"TASK_API_{name}")
        with_default = getattr(taskapi_settings, read)
    assert with_default in (0.05, 1024 * 1024, "taskapi")
    assert getattr(taskapi_settings, read) == kept


@pytest.mark.parametrize(
    ("name", "read", "rest"),
    [
        ("AUTHENTICATION_CLASSES", "authentication_classes", [BasicAuthentication]),
        ("PERMISSION_CLASSES", "permissions_classes", [IsAdminUser]),
        ("THROTTLE_CLASSES", "throttle_classes", [UserRateThrottle]),
    ],
)
def test_the_classes_of_a_project_are_those_of_rest_framework_unless_it_says_otherwise(name, read, rest):
    paths = [f"{cls.__module__}.{cls.__name__}" for cls in rest]
    with override_settings(REST_FRAMEWORK={f"DEFAULT_{name}": paths}):
        assert getattr(taskapi_settings, read) == rest


@pytest.mark.parametrize(
    ("tasks", "classes", "read"),
    [(["a", "b"], [], ["a", "b"]), ([], ["a"], ["a"]), (["a", "b"], ["b", "c"], ["a", "b", "c"])],
)
def test_tasks_are_registered_by_both_names_that_the_documentation_has(settings, tasks, classes, read):
    settings.TASK_API_BACKGROUND_TASKS = tasks
    settings.TASK_API_BACKGROUND_CLASSES = classes
    assert taskapi_settings.background_tasks == tuple(read)


@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        ("redis://set/1", "redis://environment/2", "redis://set/1"),
        (None, "redis://environment/2", "redis://environment/2"),
        ("", "", "redis://127.0.0.1:6379/0"),
    ],
)
def test_the_address_of_redis_is_set_or_of_the_environment(settings, monkeypatch, setting, environment, expected):
    settings.TASK_API_REDIS_URL = setting
    monkeypatch.setenv("REDIS_URL", environment)
    assert taskapi_settings.redis_url == expected


@pytest.mark.parametrize(
    ("aliases", "expected"),
    [([], None), (["other"], None), (["other", "default"], "default"), (["default", "taskapi"], "taskapi")],
)
def test_events_travel_over_our_own_alias_or_the_default_one(settings, aliases, expected):
    settings.CHANNEL_LAYERS = dict.fromkeys(aliases, OWN_LAYER)
    assert taskapi_settings.channel_layer_alias() == expected


# Objects that are made from settings are made again when these change


def test_the_backend_is_the_same_until_a_setting_changes(settings):
    first = get_backend()
    assert isinstance(first, ArqBackend)
    assert get_backend() is first
    settings.TASK_API_REDIS_URL = "redis://127.0.0.1:1/7"
    second = get_backend()
    assert second.redis.get_connection_kwargs()["db"] == 7
    settings.TASK_API_BACKEND = "tests.support.backends.ListBackend"
    assert isinstance(get_backend(), ListBackend)


def test_a_layer_of_our_own_is_made_where_the_project_has_none(settings):
    first = channel_layer.get_layer()
    assert channel_layer.get_layer() is first
    settings.TASK_API_REDIS_URL = "redis://127.0.0.1:1/7"
    assert channel_layer.get_layer() is not first
    settings.CHANNEL_LAYERS = {"default": OWN_LAYER}
    assert type(channel_layer.get_layer()).__name__ == "InMemoryChannelLayer"
