"""Runs in the admin, for staff: to be looked at, not edited. What a run says is written by its life alone."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from taskapi.models import TaskInfo


@admin.register(TaskInfo)
class TaskInfoAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stubs' generic is not subscriptable at run time
    """Every run, newest first, with what it was given, said and returned."""

    list_display = ("uuid", "task", "status", "how_far", "user", "attempt", "created", "finished")
    list_filter = ("status", "task", "queue", "created")
    list_select_related = ("user",)
    search_fields = ("=uuid", "task")
    show_full_result_count = False  # counting a long table takes longer than showing a page of it
    fieldsets = (
        (None, {"fields": ("uuid", "task", "status", "how_far", "user", "queue", "attempt")}),
        ("Values", {"fields": ("inputs_json", "outputs_json", "messages_json")}),
        ("Failure", {"fields": ("error", "traceback_text")}),
        ("Times", {"fields": ("created", "run_at", "started", "finished")}),
    )

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
