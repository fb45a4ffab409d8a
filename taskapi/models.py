"""The record: what happened to each run, and its messages."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.files import File
from django.db import connections, models, router, transaction
from django.db.models.base import ModelState
from django.db.models.query_utils import DeferredAttribute
from django.utils import timezone

from taskapi.exceptions import TaskCancelled, TaskFailed
from taskapi.protocol.states import FINAL, Status
from taskapi.storage import MARK, Kept, Offloaded, get_storage
from taskapi.tasks import doors
from taskapi.tasks.current import waiting_for

FIRST_LOOK, LAST_LOOK = 0.005, 0.5  # seconds between two looks at a run by `result()`
NEWEST = 100  # runs of a user: some may have been started, and have ended, since Django looked up all of them

_UNFINISHED = [status.value for status in Status if status not in FINAL]


class JSONAttribute(DeferredAttribute):
    """The attribute of a JSONTextField. A value that is kept in the storage is loaded when it is asked for."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if isinstance(value, Kept):
            value = self.__set__(instance, value.load())
        return value

    def __set__(self, instance: Any, value: Any) -> Any:
        instance.__dict__[self.field.attname] = value
        return value


class JSONTextField(models.TextField):  # type: ignore[type-arg]  # the stubs' generic is not subscriptable at run time
    """Any JSON value, kept as its text.

    Text and not the database's JSON type: that type refuses NUL characters (PostgreSQL), reorders keys
    (PostgreSQL, MySQL) and rounds numbers (MySQL). A task's value could then fail to be recorded.
    """

    descriptor_class = JSONAttribute

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        if value is None:
            return None
        return Kept.parse(value) if value.startswith(MARK) else json.loads(value)

    def to_python(self, value: Any) -> Any:
        return value

    def get_prep_value(self, value: Any) -> str | None:
        if isinstance(value, (Kept, Offloaded)):
            return (value.kept if isinstance(value, Offloaded) else value).text
        return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = vars(model_instance).get(self.attname)
        return value if isinstance(value, Kept) else super().pre_save(model_instance, add)  # nothing is read

    def value_to_string(self, obj: models.Model) -> Any:
        return self.value_from_object(obj)


class Runs(models.QuerySet["TaskInfo"]):
    """Runs, which can be deleted while they are executed."""

    def delete(self) -> tuple[int, dict[str, int]]:
        """As Django's, but the runs are locked first: a worker that writes one of them waits, and then finds no row."""
        if self.query.is_sliced or self.query.distinct_fields:
            return super().delete()  # which raises
        using = router.db_for_write(TaskInfo, **self._hints) if self._db is None else self._db  # type: ignore[attr-defined]  # Django's own
        with transaction.atomic(using=using):
            _lock_unfinished(self.using(using))
            return super().delete()

    delete.alters_data = True  # type: ignore[attr-defined]  # as Django's own: no template may call it
    delete.queryset_only = True  # type: ignore[attr-defined]  # as Django's own: the manager does not get it


def _lock_unfinished(runs: models.QuerySet[TaskInfo]) -> None:
    """Lock those of the runs that a worker may write, until the end of the transaction.

    Django deletes the messages of a run and then the run. A message that is added in between would belong to no run.
    """
    unfinished = runs.filter(status__in=_UNFINISHED).order_by().values("pk")
    _lock(TaskInfo.objects.using(runs.db).filter(pk__in=unfinished))


def _lock(found: models.QuerySet[Any]) -> None:
    if connections[found.db].features.has_select_for_update:
        list(found.select_for_update().values_list("pk", flat=True))
    else:  # SQLite has one lock, for all writers. A transaction that has read something may ask for it too late.
        TaskInfo.objects.using(found.db).filter(pk=0).update(worker="")


def before_user_deletion(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    """Before a user is deleted: until the end of the transaction, no run of the user can be started or written.

    Django has looked up already which runs it will delete. One that was started since then would be a run of no user.
    """
    if not router.allow_migrate_model(using, TaskInfo):
        return
    _lock(sender._base_manager.using(using).filter(pk=instance.pk))  # noqa: SLF001 - Django's public name for it
    users_runs = TaskInfo.objects.using(using).filter(user=instance.pk)
    newest = list(users_runs.order_by("-id").values_list("pk", flat=True)[:NEWEST])
    users_runs.filter(models.Q(status__in=_UNFINISHED) | models.Q(pk__in=newest)).only("pk").delete()


class TaskInfo(models.Model):
    """One run of a task."""

    uuid = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    task = models.CharField(max_length=255)
    status = models.CharField(
        max_length=16, choices=[(status.value, status.value) for status in Status], default=Status.PENDING.value
    )
    queue = models.CharField(max_length=128, default="default")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="+", db_index=False
    )  # no index: taskapi_user_newest is one
    inputs = JSONTextField(default=dict)
    outputs = JSONTextField(null=True, blank=True)
    error = JSONTextField(null=True, blank=True)  # {"code", "message"}
    traceback = models.TextField(blank=True, default="")  # for staff
    target = models.BigIntegerField(null=True, blank=True)
    progress = models.BigIntegerField(null=True, blank=True)
    message_count = models.PositiveIntegerField(default=0)
    attempt = models.PositiveIntegerField(default=0)  # executions so far; 1 during the first
    max_attempts = models.PositiveIntegerField(default=3)  # executions in all, without those that were handed back
    # These two are no PositiveIntegerField: to add its CHECK, PostgreSQL would read the whole table.
    handed_back = models.IntegerField(default=0, db_default=0, editable=False)  # attempts that a worker handed back
    lost = models.IntegerField(default=0, db_default=0, editable=False)  # attempts that ended with their worker
    worker = models.CharField(max_length=32, blank=True, default="", editable=False)  # the one that executes it
    renewed = models.DateTimeField(null=True, blank=True, editable=False)  # its lease, by the database's clock
    seq = models.BigIntegerField(default=0)  # of the last report; see taskapi.protocol
    cancel_requested = models.BooleanField(default=False)
    idempotency = models.CharField(max_length=64, null=True, unique=True, editable=False)  # noqa: DJ001 - NULLs may repeat under unique, "" may not
    idempotency_inputs = models.CharField(max_length=64, blank=True, default="", editable=False)  # digest
    run_at = models.DateTimeField(null=True, blank=True)  # not before this moment
    created = models.DateTimeField(default=timezone.now)
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)
    retain = models.DurationField(null=True, blank=True)  # how long it is kept after its end; null: for ever
    expires = models.DateTimeField(null=True, blank=True)  # when it may be deleted; null: never

    #: Not of the row: what its reader is to be told, `{"code", "message"}` (`taskapi.backends.attendance`).
    hint: dict[str, str] | None = None

    #: Not of the row: the files among the inputs of a run that is not recorded yet (`taskapi.files`).
    given: Any = None

    objects = Runs.as_manager()

    class Meta:
        verbose_name = "run"
        ordering = ("-id",)
        indexes = (
            # unfinished runs, oldest first: few, however long the table is (not partial: MySQL has no partial index)
            models.Index(fields=["status", "id"], name="taskapi_status"),
            # retention's query
            models.Index(fields=["expires"], name="taskapi_expires"),
            # a user's runs, newest first
            models.Index(fields=["user", "-id"], name="taskapi_user_newest"),
        )

    left_since: datetime | None = None  # no column: since when workers had left the run to others, before this attempt

    def __copy__(self) -> TaskInfo:
        """As copy.copy() without it, which pickles: each run is copied three times."""
        copied: TaskInfo = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        state = copied._state = ModelState()
        vars(state).update(vars(self._state))
        state.fields_cache = self._state.fields_cache.copy()
        return copied

    def __str__(self) -> str:
        return f"{self.task} {self.uuid}"

    @classmethod
    def rows(cls) -> models.QuerySet[TaskInfo]:
        """The rows as they are in the database that is written to: a replica may lag."""
        return cls.objects.using(router.db_for_write(cls))

    def refresh_from_db(
        self, using: str | None = None, fields: Iterable[str] | None = None, from_queryset: Any = None
    ) -> None:
        """As Django's, but by default from the database that is written to: a replica may lag."""
        if using is None and (from_queryset is None or from_queryset._db is None):  # noqa: SLF001 - Django's own
            using = router.db_for_write(TaskInfo, instance=self)
        super().refresh_from_db(using, fields, from_queryset)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """As Django's, and as `Runs.delete`."""
        using = using or router.db_for_write(TaskInfo, instance=self)
        with transaction.atomic(using=using):
            _lock_unfinished(TaskInfo.objects.using(using).filter(pk=self.pk))
            return super().delete(using, keep_parents)

    delete.alters_data = True  # type: ignore[attr-defined]  # as Django's own: no template may call it

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def tries(self) -> int:
        """The attempts so far that count against `max_attempts`: all but those that were handed back."""
        return self.attempt - self.handed_back

    @property
    def messages(self) -> list[Any]:
        """Every message so far, in order."""
        return self.messages_after(0)

    def messages_after(self, count: int) -> list[Any]:
        """The messages past the first `count`, up to the `message_count` of this instance.

        So an instance and its messages are of one moment: messages are only appended.
        """
        if self.message_count <= count:
            return []
        return [message.body for message in TaskMessage.of(self, count)]

    @property
    def input_names(self) -> Iterable[str]:
        """The names of the inputs that are recorded. It loads nothing that is kept in the storage."""
        inputs = vars(self).get("inputs")
        return inputs.names if isinstance(inputs, Kept) else list(self.inputs)

    def is_loaded(self, *names: str) -> bool:
        """Whether none of these values has to be loaded from the storage when it is asked for."""
        return not any(isinstance(vars(self).get(name), Kept) for name in names)

    def load(self, *names: str) -> None:
        """Load these values from the storage, where they are not loaded."""
        for name in names:
            getattr(self, name)

    @property
    def files(self) -> models.QuerySet[StoredFile]:
        """The files that the run has returned; `open()` of each gives what is in it."""
        return StoredFile.rows().filter(uses__run=self.pk, kind=StoredFile.OUTPUT, is_ready=True).order_by("id")

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """The outputs, once the run has ended; TaskFailed or TaskCancelled if it has none.

        Waits for at most `timeout` seconds (None: for ever), then raises TimeoutError.
        """
        return async_to_sync(self.aresult)(timeout)

    async def aresult(self, timeout: float | None = None) -> dict[str, Any]:
        """As `result`, for async code."""
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        pause = FIRST_LOOK
        with waiting_for(self) as still_waits:
            while not self.is_final:
                if deadline is not None:
                    left = deadline - asyncio.get_running_loop().time()
                    if left <= 0:
                        raise TimeoutError(f"The run {self.uuid} is {self.status} after {timeout} s.")
                    pause = min(pause, left)
                await asyncio.sleep(pause)
                pause = min(1.5 * pause, LAST_LOOK)
                await self.arefresh_from_db()
                still_waits()
        if self.status == Status.FAILED:
            raise TaskFailed(self)
        if self.status == Status.CANCELLED:
            raise TaskCancelled(self)
        if not self.is_loaded("outputs"):
            await sync_to_async(self.load)("outputs")
        return self.outputs or {}

    def cancel(self) -> bool:
        """Ask the run to stop: one that waits is cancelled at once, one that runs stops when its task notices.

        False if it has ended already.
        """
        return doors.runs().cancel(self)

    async def acancel(self) -> bool:
        """As `cancel`, for async code."""
        return await sync_to_async(self.cancel)()

    def retry(self) -> TaskInfo:
        """Start a new run of the same inputs, with the same user."""
        return doors.runs().retry(self)

    async def aretry(self) -> TaskInfo:
        """As `retry`, for async code."""
        return await sync_to_async(self.retry)()


class TaskMessage(models.Model):
    """One message of a run. The log is append-only, and its index has no gap."""

    run = models.ForeignKey(TaskInfo, on_delete=models.CASCADE, related_name="log", db_index=False)
    index = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    seq = models.BigIntegerField()
    body = JSONTextField(null=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["run", "index"], name="taskapi_message_index"),)

    def __str__(self) -> str:
        return f"{self.run_id} [{self.index}]"

    @classmethod
    def of(cls, info: TaskInfo, after: int) -> models.QuerySet[TaskMessage]:
        """The messages of the run as `info` knows it, past the first `after`, in order.

        They are read from the database that is written to: a replica may lag.
        """
        log = cls.objects.using(router.db_for_write(cls, instance=info)).filter(run=info.pk)
        return log.filter(index__gte=after, index__lt=info.message_count).order_by("index")


class StoredFile(models.Model):
    """A file in the project's storage: one that was uploaded as an input, or one that a task has returned.

    Its row is there before the file is written, and until the file is deleted: so nothing is left in the storage of
    which no row tells. `due` says when it is to be deleted. A file that runs use is not.
    """

    UPLOAD, OUTPUT, VALUE = "upload", "output", "value"  # the last: inputs or outputs that are too large for the table

    reference = models.CharField(max_length=40, unique=True, editable=False)  # by which clients name it: a secret
    kind = models.CharField(max_length=8, choices=[(UPLOAD, UPLOAD), (OUTPUT, OUTPUT), (VALUE, VALUE)], editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )  # who may use it; null: whoever knows its reference. Not CASCADE: the row has to outlive what is in the storage
    sender = models.CharField(max_length=64, blank=True, default="", editable=False)  # digest of an address
    location = models.CharField(max_length=255, editable=False)  # in the storage
    name = models.CharField(max_length=255, editable=False)
    size = models.BigIntegerField(default=0, editable=False)  # bytes
    content_type = models.CharField(max_length=255, editable=False)  # as its sender says
    digest = models.CharField(max_length=64, blank=True, default="", editable=False)  # SHA-256
    is_ready = models.BooleanField(default=False, editable=False)  # all of it is in the storage, and stays there
    due = models.DateTimeField(null=True, blank=True, editable=False)  # null: runs use it
    created = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "file"
        indexes = (
            # the sweep's query
            models.Index(fields=["due"], name="taskapi_file_due"),
            # how many uploads an anonymous address has
            models.Index(fields=["sender", "due"], name="taskapi_file_sender"),
        )

    def __str__(self) -> str:
        return self.name

    @classmethod
    def rows(cls) -> models.QuerySet[StoredFile]:
        """The rows as they are in the database that is written to: a replica may lag."""
        return cls.objects.using(router.db_for_write(cls))

    def open(self) -> File[Any]:
        """What is in it, to be read, as bytes."""
        return get_storage().open(self.location, "rb")


class FileUse(models.Model):
    """That a run uses a file. A file goes when the last of its runs goes."""

    run = models.ForeignKey(TaskInfo, on_delete=models.CASCADE, related_name="+", db_index=False)
    file = models.ForeignKey(StoredFile, on_delete=models.CASCADE, related_name="uses")

    class Meta:
        constraints = (models.UniqueConstraint(fields=["run", "file"], name="taskapi_file_use"),)

    def __str__(self) -> str:
        return f"{self.run_id} {self.file_id}"

    @classmethod
    def rows(cls) -> models.QuerySet[FileUse]:
        """As those of `StoredFile`."""
        return cls.objects.using(router.db_for_write(cls))
