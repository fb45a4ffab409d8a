"""Runs in the admin, for staff: to be looked at, not edited. Only a worker writes what a run says."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import router
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from taskapi.models import TaskInfo
from taskapi.tasks.registry import tasks

MOST_LISTED = 2_000  # runs in a list; a filter or a search finds older ones


class _Newest(Paginator):  # type: ignore[type-arg]  # as below
    """The first pages of a list: counting all rows of a long table takes longer than showing some of them."""

    @cached_property
    def count(self) -> int:
        runs: QuerySet[TaskInfo] = self.object_list  # type: ignore[assignment]  # always, here
        return runs[:MOST_LISTED].count()


class _List(ChangeList):
    """A list of runs without what it does not show: one run may have as much of that as memory holds."""

    def get_queryset(self, *args: Any, **kwargs: Any) -> QuerySet[TaskInfo]:
        runs: QuerySet[TaskInfo] = super().get_queryset(*args, **kwargs)
        return runs.defer("inputs", "outputs", "error", "traceback")


class _NameFilter(admin.SimpleListFilter):
    """Runs by a name that the project's tasks have: finding the names in a long table would take long."""

    @abstractmethod
    def names(self) -> Iterable[str]: ...

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted(set(self.names()))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TaskInfo]) -> QuerySet[TaskInfo]:
        name = self.value()
        return queryset if name is None else queryset.filter(**{str(self.parameter_name): name})


class TaskFilter(_NameFilter):
    title = parameter_name = "task"

    def names(self) -> Iterable[str]:
        return tasks()


class QueueFilter(_NameFilter):
    title = parameter_name = "queue"

    def names(self) -> Iterable[str]:
        return (task.queue for task in tasks().values())


@admin.register(TaskInfo)
class TaskInfoAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stubs' generic is not subscriptable at run time
    """Every run, newest first, with what it was given, said and returned."""

    list_display = ("uuid", "task", "status", "how_far", "user", "attempt", "created", "finished")
    list_filter = ("status", TaskFilter, QueueFilter, "created")
    paginator = _Newest
    list_select_related = ("user",)
    search_fields = ("=uuid", "task")
    show_full_result_count = False
    fieldsets = (
        (None, {"fields": ("uuid", "task", "status", "how_far", "user", "queue", "attempt")}),
        ("Values", {"fields": ("inputs_json", "outputs_json", "messages_json")}),
        ("Failure", {"fields": ("error", "traceback_text")}),
        ("Times", {"fields": ("created", "run_at", "started", "finished")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskInfo]:
        return super().get_queryset(request).using(router.db_for_write(TaskInfo))  # a replica may lag

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _List

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: TaskInfo | None = None) -> bool:
        return False

    @admin.display(description="progress")
    def how_far(self, info: TaskInfo) -> str:
        if info.progress is None:
            return ""
        return str(info.progress) if info.target is None else f"{info.progress} / {info.target}"

    @admin.display(description="inputs")
    def inputs_json(self, info: TaskInfo) -> SafeString:
        return _pretty(info.inputs)

    @admin.display(description="outputs")
    def outputs_json(self, info: TaskInfo) -> SafeString:
        return _pretty(info.outputs)

    @admin.display(description="messages")
    def messages_json(self, info: TaskInfo) -> SafeString:
        return _pretty(info.messages)

    @admin.display(description="traceback")
    def traceback_text(self, info: TaskInfo) -> SafeString:
        return format_html("<pre>{}</pre>", info.traceback)


def _pretty(value: Any) -> SafeString:
    return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False))
