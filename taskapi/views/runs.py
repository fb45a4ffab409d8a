"""``tasks/``: start runs, and list them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from taskapi.exceptions import UnknownTask
from taskapi.models import TaskInfo
from taskapi.protocol import MANY_LENGTH, TASK_LENGTH, represent
from taskapi.protocol.states import FINAL, Status
from taskapi.runs import Batch, listing
from taskapi.runs.access import passes
from taskapi.runs.moves import refresh
from taskapi.tasks.registry import get_task
from taskapi.views.base import RETRY_AFTER, View, public_path
from taskapi.views.keys import idempotency_key
from taskapi.views.pages import Pages
from taskapi.views.waiting import preferred_wait, until_final

STATUSES = [status.value for status in Status]


class RunRequest(serializers.Serializer[Any]):
    """The body of ``POST tasks/``: `inputs` for one run, or `many` of them."""

    task = serializers.CharField(max_length=TASK_LENGTH)
    inputs = serializers.JSONField(default=dict, allow_null=True)  # the task checks them
    many = serializers.ListField(  # type: ignore[assignment]  # a keyword of its constructor has this name, too
        required=False, allow_empty=False, max_length=MANY_LENGTH
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "many" in attrs and "inputs" in self.initial_data:
            raise ValidationError({"many": ["Give `inputs` for one run, or `many` for several, but not both."]})
        return attrs


class RunsView(View):
    """``tasks/``"""

    pagination_class = Pages

    def post(self, request: Request) -> Response:
        """Start a run; or, with `many`, a run for each of these inputs, or none."""
        body = RunRequest(data=request.data)
        body.is_valid(raise_exception=True)
        given, key = body.validated_data, idempotency_key(request)
        if "many" in given:
            batch = self.start_runs(given["task"], given["many"], idempotency_key=key)
            return self._answer(batch.infos, partial(_answer_many, batch))
        info, created = self.start_run(given["task"], given["inputs"], idempotency_key=key)
        location = f"{public_path(request)}{info.uuid}/"
        code = status.HTTP_201_CREATED if created else status.HTTP_200_OK

        def answer(*, again: bool) -> Response:
            if again:
                with suppress(TaskInfo.DoesNotExist):  # it was kept for less time than the client has waited
                    refresh(info)
            return self.represented(info, code=code, location=location)

        return self._answer([info], answer)

    def _answer(self, infos: Sequence[TaskInfo], answer: Callable[..., Response]) -> Response:
        """The answer to a start: at once, or when these runs have ended if the client prefers to wait for that.

        `answer` makes it; with `again=True`, it reads the runs again.
        """
        seconds = preferred_wait(self.request)
        if not seconds or all(info.is_final for info in infos):
            return self.waited(answer(again=False), seconds)
        return self.answer_later(until_final(infos, seconds), seconds, partial(answer, again=True))

    def get(self, request: Request) -> Response:
        """The caller's runs, newest first; ``?task=``, ``?status=``, and ``?owner=all`` for staff."""
        pages = self.pagination_class()
        page = listing.read(pages.paginate_queryset(_asked_for(request), request, view=self) or [])
        return pages.get_paginated_response(listing.represent_all(self._shown(page)))

    def _shown(self, page: Iterable[TaskInfo]) -> list[TaskInfo]:
        """Those of the runs that `find_run` would find; a task's own classes are asked once."""
        permitted: dict[str, bool] = {}
        shown = []
        caller = self.request.user
        for info in page:
            if info.user_id is not None and info.user_id == caller.pk and isinstance(caller, get_user_model()):
                info.user = caller  # a permission class may look at it
            try:
                self.task = get_task(info.task)
            except UnknownTask:
                self.task = None
            if info.task not in permitted:
                permitted[info.task] = self.task is None or passes(self.check_permissions, self.request)
            if permitted[info.task] and passes(self.check_object_permissions, self.request, info):
                shown.append(info)
        return shown


def _asked_for(request: Request) -> QuerySet[TaskInfo]:
    """The runs that are the caller's, or everybody's, and that the filters leave."""
    filters = _filters(request)
    user = request.user
    if "owner" in request.query_params:
        _check_owner(request.query_params["owner"], user)
        return listing.select(**filters).select_related("user")  # a permission class may look at it
    if not getattr(user, "is_authenticated", False):
        return TaskInfo.objects.none()
    return listing.select(user, **filters)


def _check_owner(owner: str, user: Any) -> None:
    if owner != "all":
        raise ValidationError({"owner": ["Expected `all`; without `owner`, the list has your own runs."]})
    if not getattr(user, "is_staff", False):
        raise PermissionDenied("Only staff may list the runs of all owners.")


def _filters(request: Request) -> dict[str, list[str]]:
    """The conditions of ``?task=`` and ``?status=``; each may be given several times."""
    tasks, statuses = request.query_params.getlist("task"), request.query_params.getlist("status")
    unknown = [status for status in statuses if status not in STATUSES]
    if unknown:
        raise ValidationError({"status": [f"Expected one of: {', '.join(STATUSES)}."]})
    return {"tasks": tasks, "statuses": statuses}


def _answer_many(batch: Batch, *, again: bool) -> Response:
    infos = batch.infos
    if batch.created == len(infos) and not again:
        shown = [represent(info, []) for info in infos]
    else:  # as in a list: nobody knows what the earlier runs have said and returned
        shown = listing.represent_all(listing.read_again(infos))
    response = Response(shown, status.HTTP_201_CREATED if batch.created else status.HTTP_200_OK)
    if not all(Status(run["status"]) in FINAL for run in shown):
        response["Retry-After"] = RETRY_AFTER
    return response
