"""Who may do what: DRF's authentication, permission and throttle classes, for REST and for sockets alike.

These classes judge with a DRF view, so each way in makes one. The REST views are subclasses of `TaskAPIView`. The
WebSocket consumer makes one for each frame (`taskapi.consumers.callers.Caller.view`): its request is made from the
handshake, and its method is that of the REST call which would do the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec
from uuid import UUID

from django.db import IntegrityError, router
from django.db.models import Model
from django.http import Http404
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request, clone_request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from taskapi import runs
from taskapi.conf import settings
from taskapi.exceptions import AlreadyFinished, InvalidInputs, UnknownTask
from taskapi.models import TaskInfo
from taskapi.runs import Batch, Submission
from taskapi.runs.refusals import REFUSALS, UNKNOWN_CALLER, as_api_exception, code_of, lacks_migration
from taskapi.store import rows
from taskapi.store.database import AWAY, requests_transaction
from taskapi.tasks import Task
from taskapi.tasks.registry import get_task, tasks

logger = logging.getLogger(__name__)

P = ParamSpec("P")


class TaskAPIView(APIView):
    """A view that is guarded by the project's classes, and by those of the task that the request is about."""

    queryset = TaskInfo.objects.all()  # DjangoModelPermissions reads the model from it
    task: type[Task] | None = None
    refused_by: Sequence[tuple[BaseThrottle, float | None]] = ()  # when `check_throttles` raised

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [authentication() for authentication in settings.authentication_classes]

    def get_permissions(self) -> list[BasePermission]:
        classes = [*settings.permissions_classes, *(self.task.permission_classes if self.task else ())]
        return [permission() for permission in classes]

    def get_throttles(self) -> list[BaseThrottle]:
        # DRF asks for them before the task is known, and gets none. We ask once more, when a run is started.
        if self.task is None:
            return []
        return [throttle() for throttle in (*settings.throttle_classes, *self.task.throttle_classes)]

    def check_throttles(self, request: Request) -> None:
        """As DRF's; it keeps the throttles that refused, and how many seconds each has to be waited for."""
        refusing = [throttle for throttle in self.get_throttles() if not throttle.allow_request(request, self)]
        self.refused_by = [(throttle, _seconds(throttle.wait())) for throttle in refusing]
        if refusing:
            raise exceptions.Throttled(max((wait for _, wait in self.refused_by if wait is not None), default=None))

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, AWAY) or lacks_migration(exc):
            logger.error("A request failed in the database. Its client is told to try again later (503).", exc_info=exc)
        answer = as_api_exception(exc)
        response = super().handle_exception(answer)
        if (
            isinstance(answer, exceptions.APIException)
            and isinstance(response.data, dict)
            and "detail" in response.data
        ):
            response.data.setdefault("code", code_of(answer))
        return response

    def start_run(
        self, task: str, inputs: Any, *, idempotency_key: str | None = None, uuid: UUID | None = None
    ) -> Submission:
        """Start a run for the caller, if the caller may."""
        draft = self.draft_run(task, inputs, idempotency_key=idempotency_key, uuid=uuid)
        try:
            return runs.save(draft)
        except IntegrityError:
            refuse_deleted_user(self.request.user)
            raise

    def start_runs(self, task: str, many: Sequence[Any], *, idempotency_key: str | None = None) -> Batch:
        """Start a run for each of the inputs, or none, for the caller, if the caller may."""
        self.task = get_task(task)
        self.check_permissions(self.request)
        for _ in many:  # as for so many calls: else this would be a way round the throttles
            self.check_throttles(self.request)
        try:
            drafts = runs.draft_many(
                self.task,
                many,
                user=self.request.user,
                idempotency_key=idempotency_key,
                build_absolute_uri=self.request.build_absolute_uri,
            )
            return runs.save_many(drafts)
        except InvalidInputs as error:
            raise exceptions.ValidationError({"many": error.detail}) from None
        except IntegrityError:
            refuse_deleted_user(self.request.user)
            raise

    def permitted_tasks(self) -> list[type[Task]]:
        """The tasks that the caller may run, by name: judged as the call that starts a run without inputs."""
        request = self.request
        try:
            return [task for _, task in sorted(tasks().items()) if self._may_start(task, request)]
        finally:
            self.task, self.request = None, request

    def _may_start(self, task: type[Task], request: Request) -> bool:
        self.task = task
        self.request = clone_request(request, "POST")
        # DRF has no other way to give a request its data
        self.request._full_data = {"task": task.name, "inputs": {}}  # type: ignore[attr-defined]  # noqa: SLF001
        return passes(self.check_permissions, self.request)

    def draft_run(
        self, task: str, inputs: Any, *, idempotency_key: str | None = None, uuid: UUID | None = None
    ) -> TaskInfo:
        """All of `start_run` but its last step, which records the run."""
        self.task = get_task(task)
        self.check_permissions(self.request)
        self.check_throttles(self.request)
        return runs.draft(
            self.task,
            inputs,
            user=self.request.user,
            idempotency_key=idempotency_key,
            uuid=uuid,
            build_absolute_uri=self.request.build_absolute_uri,
        )

    def cancel_run(self, uuid: UUID) -> TaskInfo:
        """Ask a run that the caller may see to stop; AlreadyFinished if it has ended."""
        info = self.find_run(uuid)
        with requests_transaction(router.db_for_write(TaskInfo)):
            cancelled = runs.cancel(info)
        if not cancelled:
            raise AlreadyFinished(info)
        return info

    def retry_run(self, uuid: UUID) -> TaskInfo:
        """Start a run that the caller may see again, as a new run; NotFinished if it has not ended."""
        info = self.find_run(uuid)
        self.check_throttles(self.request)
        return runs.retry(info, self.request.build_absolute_uri)

    def find_run(self, uuid: UUID) -> TaskInfo:
        """A run that the caller may see, or NotFound.

        A user sees the user's own runs and those that were started anonymously; staff sees all. A caller without
        credentials gets the same answer whether the run exists or not, and it says that credentials are missing.
        """
        try:
            return self._find_run(uuid)
        except (exceptions.NotFound, Http404):
            if not self.request.authenticators or self.request.successful_authenticator is not None:
                raise
            raise exceptions.NotFound(code=UNKNOWN_CALLER) from None

    def _find_run(self, uuid: UUID) -> TaskInfo:
        info = rows.read({"uuid": uuid})
        if info is None or not _may_see(self.request.user, info):
            raise exceptions.NotFound
        try:
            self.task = get_task(info.task)
        except UnknownTask:
            self.task = None
        else:
            self.check_permissions(self.request)
        self.check_object_permissions(self.request, info)
        return info


def _seconds(wait: float | None) -> float | None:
    """What a throttle says, which may be in the past if the clock was set back."""
    return None if wait is None else max(wait, 0.0)


def passes(check: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
    """Whether a check of REST framework refuses nothing: a list leaves out what its caller may not see."""
    try:
        check(*args, **kwargs)
    except REFUSALS:
        return False
    return True


def _may_see(user: Any, info: TaskInfo) -> bool:
    if info.user_id is None:
        return True
    return user is not None and (user.pk == info.user_id or bool(getattr(user, "is_staff", False)))


def refuse_deleted_user(user: Any) -> None:
    """NotAuthenticated if the user's row was deleted since the user was authenticated. A query.

    Call it when a run could not be recorded (IntegrityError): its row refers to the user's.
    """
    model = user.__class__  # not `type`: DRF's and Django's users may be lazy objects
    if not issubclass(model, Model):
        return
    users: Any = model._base_manager  # noqa: SLF001 - Django's public name for it
    if not users.using(router.db_for_write(model)).filter(pk=user.pk).exists():
        raise exceptions.NotAuthenticated
