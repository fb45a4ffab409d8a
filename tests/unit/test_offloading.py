"""TASK_API_OFFLOAD_BYTES: large inputs and outputs are in the storage, and nobody notices."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from taskapi import files as stored
from taskapi import runs
from taskapi.engines import immediate
from taskapi.events.following import Following, find_run
from taskapi.exceptions import IdempotencyConflict, StorageUnavailable
from taskapi.management.checks.settings import check_settings
from taskapi.models import StoredFile, TaskInfo
from taskapi.params import FileParameter, JSONParameter, StringParameter
from taskapi.storage import Kept
from taskapi.store import rows
from taskapi.tasks import Task
from taskapi.testing import arun_task, run_task
from taskapi.workers import upkeep
from taskapi.workers.call import refusal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue", "memory_layer")]

LIMIT = 1_000  # bytes
LARGE, SMALL = "x" * 2_000, "x" * 10
LOST = "The inputs of this run are not in the storage any more."
HUGE = "x" * 50_000  # too large for a list


class Echo(Task):
    name = "echo"
    inputs = {"text": StringParameter()}
    outputs = {"text": StringParameter()}

    def run(self, text: str) -> str:
        self.add_message(text)
        return text


class Fails(Task):
    """Return an output that is large and one that is refused."""

    name = "fails"
    outputs = {"value": JSONParameter(), "file": FileParameter(max_bytes=1)}

    def run(self) -> Any:
        return {"value": LARGE, "file": ContentFile(b"too large", "x")}


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.TASK_API_BACKGROUND_TASKS = [Echo, Fails]
    settings.TASK_API_OFFLOAD_BYTES = LIMIT
    return tmp_path / "media"


@pytest.fixture
def staff() -> User:
    return User.objects.create_superuser("root")


def in_storage(media: Path) -> list[Path]:
    return [path for path in media.rglob("*") if path.is_file()]


def column(name: str, info: TaskInfo) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {name} FROM taskapi_taskinfo WHERE id = %s", [info.pk])  # noqa: S608
        return str(cursor.fetchone()[0])


def execute(info: TaskInfo) -> TaskInfo:
    immediate.execute(info.uuid)
    return TaskInfo.objects.get(pk=info.pk)


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_what_is_large_is_in_the_storage_and_not_in_the_table(media: Path) -> None:
    info = execute(Echo.start({"text": LARGE}))
    assert len(column("inputs", info)) < LIMIT / 5
    assert len(column("outputs", info)) < LIMIT / 5
    assert sorted(json.loads(path.read_text())["text"] for path in in_storage(media)) == [LARGE, LARGE]
    assert info.inputs == info.outputs == {"text": LARGE}
    assert info.messages == [LARGE]
    assert list(info.files) == []  # they are no files that a task has returned


def test_what_is_small_stays_in_the_table(media: Path, settings: Any) -> None:
    info = execute(Echo.start({"text": SMALL}))
    assert column("inputs", info) == column("outputs", info) == json.dumps({"text": SMALL}, separators=(",", ":"))
    settings.TASK_API_OFFLOAD_BYTES = None
    info = execute(Echo.start({"text": LARGE}))
    assert LARGE in column("inputs", info)
    assert not in_storage(media)


def test_a_run_that_is_read_loads_what_is_asked_for_and_once(media: Path) -> None:
    info = execute(Echo.start({"text": LARGE}))
    assert isinstance(vars(info)["inputs"], Kept)
    assert info.input_names == ("text",)
    assert refusal(info) is None
    assert isinstance(vars(info)["inputs"], Kept)
    assert not info.is_loaded("inputs", "outputs")
    first = info.inputs
    for path in in_storage(media):
        path.unlink()
    assert info.inputs is first
    info.save()  # an instance that was loaded is written as it was
    assert isinstance(vars(TaskInfo.objects.get(pk=info.pk))["inputs"], Kept)
    deferred = TaskInfo.objects.defer("inputs").get(pk=info.pk)
    with pytest.raises(StorageUnavailable):
        deferred.load("inputs")


def test_each_view_of_a_run_has_its_values(staff: User) -> None:
    info = execute(Echo.start({"text": LARGE}, user=staff))
    client = client_of(staff)
    shown = client.get(f"/tasks/{info.uuid}/").json()
    assert shown["inputs"] == shown["outputs"] == {"text": LARGE}
    (listed,) = client.get("/tasks/").json()["results"]
    assert listed["inputs"] == listed["outputs"] == {"text": LARGE}
    assert "omitted" not in listed
    page = client.get(f"/admin/taskapi/taskinfo/{info.pk}/change/").content.decode()
    assert page.count(LARGE) >= 3
    assert client.get("/admin/taskapi/taskinfo/").status_code == 200


def test_a_list_leaves_out_what_is_too_large_and_does_not_load_it(staff: User, media: Path) -> None:
    execute(Echo.start({"text": HUGE}, user=staff))
    for path in in_storage(media):
        path.unlink()
    (listed,) = client_of(staff).get("/tasks/").json()["results"]
    assert listed["omitted"] == ["inputs", "outputs", "messages"]


def test_a_value_that_is_lost_is_left_out_of_a_list(staff: User, media: Path) -> None:
    execute(Echo.start({"text": LARGE}, user=staff))
    for path in in_storage(media):
        path.unlink()
    execute(Echo.start({"text": LARGE}, user=staff))
    found, lost = client_of(staff).get("/tasks/").json()["results"]
    assert found["inputs"] == found["outputs"] == {"text": LARGE}
    assert lost["omitted"] == ["inputs", "outputs"]


def test_a_run_whose_inputs_are_lost_fails_with_a_sentence(media: Path) -> None:
    info = Echo.start({"text": LARGE})
    for path in in_storage(media):
        path.unlink()
    assert execute(info).error == {"code": "task_error", "message": LOST}


async def test_a_follower_gets_the_values(media: Path) -> None:
    from asgiref.sync import sync_to_async

    info = await Echo.astart({"text": LARGE})
    await sync_to_async(immediate.execute)(info.uuid)
    frames: list[Any] = []

    async def take(text: str) -> None:
        frames.append(json.loads(text))

    async with Following(take) as following:
        await following.follow(info.uuid, {"type": "snapshot"}, find_run)
    assert [frame["type"] for frame in frames] == ["snapshot", "finished"]
    assert frames[0]["task"]["inputs"] == frames[0]["task"]["outputs"] == {"text": LARGE}
    assert frames[1]["task"]["outputs"] == {"text": LARGE}
    assert await info.aresult() == {"text": LARGE}


async def test_the_last_event_has_the_outputs() -> None:
    run = await arun_task(Echo, {"text": LARGE})
    assert run.events[-1]["task"]["outputs"] == run.outputs == {"text": LARGE}


def test_they_go_with_their_run(media: Path) -> None:
    first, second = execute(Echo.start({"text": LARGE})), execute(Echo.start({"text": LARGE}))
    assert len(in_storage(media)) == 4
    first.delete()
    assert len(in_storage(media)) == 2
    TaskInfo.objects.update(expires=timezone.now() - timedelta(seconds=1))
    assert upkeep.prune() == 1
    assert not in_storage(media)
    assert not StoredFile.objects.exists()
    assert second.pk


def test_a_run_whose_values_are_lost_can_still_be_deleted(media: Path) -> None:
    info = execute(Echo.start({"text": LARGE}))
    for path in in_storage(media):
        path.unlink()
    TaskInfo.objects.update(expires=timezone.now() - timedelta(seconds=1))
    assert upkeep.prune() == 1
    assert not TaskInfo.objects.filter(pk=info.pk).exists()
    assert not StoredFile.objects.exists()


def test_a_retry_has_values_of_its_own(media: Path) -> None:
    first = execute(Echo.start({"text": LARGE}))
    second = first.retry()
    first.delete()
    assert execute(second).outputs == {"text": LARGE}


def test_many_runs_and_keys_are_as_ever(media: Path) -> None:
    infos = Echo.start_many([{"text": LARGE}, {"text": SMALL}, {"text": LARGE}])
    assert [execute(info).outputs for info in infos] == [{"text": LARGE}, {"text": SMALL}, {"text": LARGE}]
    before = len(in_storage(media))
    first = Echo.start({"text": LARGE}, idempotency_key="k")
    assert Echo.start({"text": LARGE}, idempotency_key="k").uuid == first.uuid
    with pytest.raises(IdempotencyConflict):
        Echo.start({"text": HUGE}, idempotency_key="k")
    assert len(in_storage(media)) == before + 1


def locked(info: TaskInfo) -> None:
    raise OperationalError("database is locked")


def test_a_start_that_is_written_again_has_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the ledger of a socket, which repeats what was rolled back."""
    draft = runs.draft(Echo, {"text": LARGE})
    with monkeypatch.context() as patch:
        patch.setattr(rows, "insert", locked)
        with pytest.raises(OperationalError), transaction.atomic():
            runs.save(draft)
    info, created = runs.save(draft)
    assert created
    assert execute(info).outputs == {"text": LARGE}


def test_a_start_whose_key_is_free_after_a_rollback_has_its_values() -> None:
    first = Echo.start({"text": LARGE}, idempotency_key="k")
    draft = runs.draft(Echo, {"text": LARGE}, idempotency_key="k")
    with transaction.atomic():
        assert runs.save(draft).info.pk == first.pk
        transaction.set_rollback(True)  # a neighbour in the transaction has failed
    first.delete()
    assert execute(runs.save(draft).info).outputs == {"text": LARGE}


def test_a_start_that_is_refused_leaves_no_values(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "insert", locked)
    with pytest.raises(OperationalError):
        Echo.start({"text": LARGE})
    with pytest.raises(OperationalError), transaction.atomic():
        Echo.start({"text": LARGE})
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


def test_a_run_that_does_not_succeed_leaves_no_outputs_in_the_storage(media: Path) -> None:
    run = run_task(Fails)
    assert run.status == "failed"
    stored.clear()
    assert not in_storage(media)


def test_a_text_that_looks_as_what_stands_for_a_value_is_a_text(media: Path) -> None:
    secret = media / "secret"
    media.mkdir()
    secret.write_text('{"text": "secret"}')
    disguised = Kept("secret", 5, ("text",)).text
    info = execute(Echo.start({"text": disguised}))
    assert info.messages == [disguised]
    assert info.outputs == {"text": disguised}
    assert Kept.parse(disguised).load() == {"text": "secret"}  # what would have been read


class DeadStorage(FileSystemStorage):
    """Takes and gives nothing."""

    def _save(self, name: str, content: Any) -> str:
        raise ConnectionError("the storage is away")

    def _open(self, name: str, mode: str = "rb") -> Any:
        raise ConnectionError("the storage is away")


def test_a_storage_that_is_away_is_said_as_that(staff: User, settings: Any) -> None:
    info = execute(Echo.start({"text": LARGE}, user=staff))
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": f"{__name__}.DeadStorage"}}
    client = client_of(staff)
    assert client.get(f"/tasks/{info.uuid}/").status_code == 503
    call = json.dumps({"task": "echo", "inputs": {"text": LARGE}})
    assert client.post("/tasks/", call, content_type="application/json").status_code == 503
    assert TaskInfo.objects.count() == 1
    with pytest.raises(StorageUnavailable):
        Echo.start({"text": LARGE})
    assert client.get(f"/admin/taskapi/taskinfo/{info.pk}/change/").status_code == 200


def test_an_attempt_reads_the_row_without_its_values() -> None:
    info = Echo.start({"text": LARGE})
    with CaptureQueriesContext(connection):
        begun = runs.begin(UUID(str(info.uuid)), "worker", refusal)
    assert begun is not None
    assert not begun.is_loaded("inputs")


@pytest.mark.parametrize(("value", "is_wrong"), [(-1, True), ("1", True), (1.5, True), (True, True), (0, False)])
def test_a_bad_bound_is_named_by_the_checks(value: Any, is_wrong: bool, settings: Any) -> None:
    settings.TASK_API_OFFLOAD_BYTES = value
    found = [message.msg for message in check_settings() if "TASK_API_OFFLOAD_BYTES" in message.msg]
    assert bool(found) is is_wrong


@pytest.mark.parametrize(
    ("limits", "is_wrong"), [({"uploads": 0}, False), ({"uploads": -1}, True), ({"upload_bytes": "1"}, True)]
)
def test_bad_limits_of_uploads_are_named_by_the_checks(limits: Any, is_wrong: bool, settings: Any) -> None:
    settings.TASK_API_LIMITS = limits
    found = [message.msg for message in check_settings() if "TASK_API_LIMITS" in message.msg]
    assert bool(found) is is_wrong
