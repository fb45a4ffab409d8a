"""Files: uploaded, given to a run, returned by it, and deleted with it."""

import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, InMemoryStorage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from taskapi import files as stored
from taskapi import runs
from taskapi.engines import immediate
from taskapi.exceptions import IdempotencyConflict, InvalidInputs
from taskapi.files.clearing import TRY_AGAIN
from taskapi.models import FileUse, StoredFile, TaskInfo
from taskapi.params import NO_SUCH_UPLOAD, FileParameter, JSONParameter, ListParameter, StringParameter
from taskapi.params.labels import safe_name
from taskapi.storage import get_storage
from taskapi.tasks import Task
from taskapi.testing import arun_task, run_task
from taskapi.workers import upkeep

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue", "memory_layer")]


@pytest.fixture(autouse=True)
def media(settings: Any, tmp_path: Path) -> Path:
    """The folder of the storage."""
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.TASK_API_BACKGROUND_TASKS = TASKS
    return tmp_path / "media"


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann")


@pytest.fixture
def bob() -> User:
    return User.objects.create_user("bob")


class Measure(Task):
    """What it is given."""

    name = "measure"
    inputs = {"file": FileParameter()}
    outputs = {"seen": JSONParameter()}

    def run(self, file: Any) -> Any:
        return {"name": file.name, "size": file.size, "content_type": file.content_type, "text": file.read().decode()}


class AsyncMeasure(Measure):
    name = "async_measure"

    async def run(self, file: Any) -> Any:
        return super().run(file)


class Pictures(Task):
    name = "pictures"
    inputs = {"files": ListParameter(FileParameter(max_bytes=10, content_types=["image/*", "text/csv"]))}
    outputs = {"names": JSONParameter()}

    def run(self, files: Any) -> Any:
        return [file.name for file in files]


class Report(Task):
    """Return what it is told to, as a file."""

    name = "report"
    inputs = {"text": StringParameter(), "name": StringParameter(default="report.csv")}
    outputs = {"report": FileParameter()}

    def run(self, text: str, name: str) -> Any:
        return ContentFile(text.encode(), name)


class TwoReports(Task):
    """Return a good file and something else, or fail: nothing of the file may stay."""

    name = "two_reports"
    inputs = {"how": StringParameter()}
    outputs = {"first": FileParameter(), "second": FileParameter(max_bytes=3)}

    def run(self, how: str) -> Any:
        return {"first": ContentFile(b"first", "a.txt"), "second": RETURNED[how]}


class Unreadable(File):  # type: ignore[type-arg]
    """A file whose reading fails half-way."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(b"x" * 10), "broken.bin")

    def chunks(self, chunk_size: int | None = None) -> Any:
        yield b"xxx"
        raise OSError("the disk is gone")


RETURNED: dict[str, Any] = {
    "good": ContentFile(b"ok", "b.txt"),
    "no file": "text",
    "too large": ContentFile(b"four", "b.txt"),
    "unreadable": Unreadable(),
}


class FullStorage(FileSystemStorage):
    """Writes a part of each file, and fails."""

    def _save(self, name: str, content: Any) -> str:
        super()._save(name, ContentFile(b"part"))
        raise OSError("no space left on device")


class StubbornStorage(FileSystemStorage):
    """Deletes nothing."""

    def delete(self, name: str) -> None:
        raise OSError("the storage is away")


def use_storage(settings: Any, storage: type) -> None:
    path = f"{storage.__module__}.{storage.__qualname__}"
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": path}}


TASKS = [Measure, AsyncMeasure, Pictures, Report, TwoReports]


def client_of(user: User | None) -> Client:
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


def upload(
    user: User | None = None, content: bytes = b"a,b\n1,2\n", name: str = "data.csv", content_type: str = "text/csv"
) -> Any:
    file = SimpleUploadedFile(name, content, content_type)
    return client_of(user).post("/tasks/uploads/", {"file": file})


def start(user: User | None, task: str, inputs: Any) -> Any:
    call = json.dumps({"task": task, "inputs": inputs})
    return client_of(user).post("/tasks/", call, content_type="application/json")


def execute(uuid: Any) -> TaskInfo:
    immediate.execute(UUID(str(uuid)))
    return TaskInfo.objects.get(uuid=uuid)


def fetch(user: User | None, url: str) -> Any:
    """The answer, of which nothing is left to be read."""
    answer = client_of(user).get(url)
    if answer.streaming:
        answer.body = b"".join(answer.streaming_content)
    answer.close()
    return answer


def read(file: StoredFile) -> bytes:
    with file.open() as opened:
        return opened.read()


def is_kept(reference: str) -> bool:
    return StoredFile.objects.filter(reference=reference, is_ready=True).exists()


def in_storage(media: Path) -> list[Path]:
    return [path for path in media.rglob("*") if path.is_file()]


# Uploads


def test_an_upload_is_answered_with_its_reference(ann: User, media: Path) -> None:
    answer = upload(ann)
    assert answer.status_code == 201
    body = answer.json()
    assert body == {"upload": body["upload"], "name": "data.csv", "size": 8, "content_type": "text/csv"}
    assert len(body["upload"]) == 40
    assert [path.read_bytes() for path in in_storage(media)] == [b"a,b\n1,2\n"]


def test_a_run_gets_the_file_that_was_uploaded(ann: User) -> None:
    for task in ("measure", "async_measure"):
        reference = upload(ann).json()["upload"]
        started = start(ann, task, {"file": {"upload": reference}})
        assert started.status_code == 201
        assert started.json()["inputs"] == {"file": {"upload": reference}}
        seen = {"name": "data.csv", "size": 8, "content_type": "text/csv", "text": "a,b\n1,2\n"}
        assert execute(started.json()["uuid"]).outputs == {"seen": seen}


def test_the_answer_to_an_upload_is_an_input_as_it_is(ann: User) -> None:
    assert start(ann, "measure", {"file": upload(ann).json()}).status_code == 201


def test_a_large_upload_is_streamed_and_read_in_parts(ann: User, settings: Any, media: Path) -> None:
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 1000
    reference = upload(ann, b"x" * 300_000).json()["upload"]
    info = execute(start(ann, "measure", {"file": {"upload": reference}}).json()["uuid"])
    assert info.outputs["seen"]["size"] == len(info.outputs["seen"]["text"]) == 300_000


@pytest.mark.parametrize("parts", [{}, {"other": "x"}, {"file": "a text"}, "two", "another"])
def test_an_upload_is_one_file_in_the_field_that_the_answer_names(ann: User, parts: Any, media: Path) -> None:
    if parts == "two":
        parts = {"file": [ContentFile(b"1", "a"), ContentFile(b"2", "b")]}
    if parts == "another":
        parts = {"file": ContentFile(b"1", "a"), "more": ContentFile(b"2", "b")}
    answer = client_of(ann).post("/tasks/uploads/", parts)
    assert answer.status_code == 400
    assert answer.json() == {"file": ["Expected one file, in a field that is named `file`."]}
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


def test_an_upload_in_json_is_answered_415(ann: User) -> None:
    answer = client_of(ann).post("/tasks/uploads/", "{}", content_type="application/json")
    assert answer.status_code == 415


@pytest.mark.parametrize("in_memory", [10, 10**6])
def test_an_upload_past_the_limit_is_answered_413(ann: User, settings: Any, media: Path, in_memory: int) -> None:
    settings.TASK_API_LIMITS = {"upload_bytes": 1000}
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = in_memory
    for size in (1001, 100_000, 500_000):
        answer = upload(ann, b"x" * size)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "1000 bytes" in answer.json()["detail"]
    assert not in_storage(media)
    assert upload(ann, b"x" * 1000).status_code == 201


def test_a_long_request_is_refused_before_its_body_is_read(ann: User, settings: Any) -> None:
    settings.TASK_API_LIMITS = {"upload_bytes": 1000}

    class Unread(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            raise AssertionError("the body was read")

    client = client_of(ann)
    length = {"CONTENT_LENGTH": "100000", "wsgi.input": Unread(), "CONTENT_TYPE": "multipart/form-data; boundary=b"}
    assert client.post("/tasks/uploads/", **length).status_code == 413


def test_a_user_may_have_so_many_uploads_that_no_run_uses(ann: User, bob: User, settings: Any, media: Path) -> None:
    settings.TASK_API_LIMITS = {"uploads": 2}
    first = upload(ann).json()["upload"]
    assert upload(ann).status_code == 201
    refused = upload(ann)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
    assert "`uploads`" in refused.json()["detail"]
    assert len(in_storage(media)) == StoredFile.objects.count() == 2
    assert upload(bob).status_code == 201
    assert start(ann, "measure", {"file": {"upload": first}}).status_code == 201
    assert upload(ann).status_code == 201


def test_an_anonymous_address_may_have_so_many_uploads(settings: Any) -> None:
    settings.TASK_API_LIMITS = {"uploads": 1}
    assert upload().status_code == 201
    assert upload().status_code == 429
    elsewhere = Client(REMOTE_ADDR="10.0.0.7").post("/tasks/uploads/", {"file": ContentFile(b"x", "x")})
    assert elsewhere.status_code == 201
    assert not StoredFile.objects.filter(sender__contains="127.0.0.1").exists()


def test_an_upload_asks_for_what_each_call_asks_for(ann: User, settings: Any, media: Path) -> None:
    settings.TASK_API_PERMISSIONS_CLASSES = ["rest_framework.permissions.IsAuthenticated"]
    assert upload().status_code == 403
    client = Client(enforce_csrf_checks=True)
    client.force_login(ann)
    assert client.post("/tasks/uploads/", {"file": ContentFile(b"x", "x")}).status_code == 403
    assert not in_storage(media)
    assert upload(ann).status_code == 201


# What a client says of a file


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ann\\data.csv", "data.csv"),
        ("a\0b\r\nc.csv", "abc.csv"),
        ("gnp.\u202egpj.exe", "gnp.gpj.exe"),
        ("", "file"),
        ("..", "file"),
        ("\ud800.csv", ".csv"),
        ("x" * 300 + ".csv", "x" * 196 + ".csv"),
        (None, "file"),
        ("Bericht für Zoë 漢字.csv", "Bericht für Zoë 漢字.csv"),
    ],
)
def test_a_name_loses_its_path_and_what_no_reader_sees(said: str | None, kept: str) -> None:
    assert safe_name(said) == kept


@pytest.mark.parametrize("name", ["../../../evil.csv", "..%2f..%2fevil.csv", "/etc/evil.csv", "a\\..\\evil.csv"])
def test_the_name_of_a_file_is_no_path_in_the_storage(ann: User, name: str, media: Path) -> None:
    body = (
        '--b\r\nContent-Disposition: form-data; name="file"; filename="' + name + '"\r\n'
        "Content-Type: text/csv\r\n\r\nx\r\n--b--\r\n"
    )
    answer = client_of(ann).post("/tasks/uploads/", body, content_type="multipart/form-data; boundary=b")
    assert answer.status_code == 201
    assert "/" not in answer.json()["name"]
    (path,) = in_storage(media.parent)
    assert "evil" not in str(path)
    assert path.is_relative_to(media / "taskapi")
    assert answer.json()["upload"] not in str(path)


def test_a_content_type_is_what_the_client_says_and_is_checked_as_such(ann: User, settings: Any) -> None:
    for said, kept in [
        ("Image/PNG; charset=x", "image/png"),
        ("no type", "application/octet-stream"),
        ("x/" + "y" * 300, "application/octet-stream"),
    ]:
        assert upload(ann, b"<script>", "p.png", said).json()["content_type"] == kept
    lie = upload(ann, b"<script>", "p.png", "image/png").json()
    assert start(ann, "pictures", {"files": lie}).status_code == 201
    truth = upload(ann, b"<script>", "p.html", "text/html").json()
    answer = start(ann, "pictures", {"files": [lie, truth]})
    assert answer.status_code == 400
    assert answer.json() == {"inputs": {"files": ["Item 1: Expected a file of type image/*, text/csv. Got text/html."]}}


def test_a_file_over_the_bound_of_its_parameter_is_refused(ann: User) -> None:
    answer = start(ann, "pictures", {"files": [upload(ann, b"x" * 11).json()]})
    assert answer.json() == {"inputs": {"files": ["Item 0: Expected a file of 10 bytes at most. Got 11."]}}


@pytest.mark.parametrize(
    "options", [{"max_bytes": -1}, {"max_bytes": 1.5}, {"max_bytes": True}, {"content_types": "x/y"}]
)
def test_a_parameter_refuses_bounds_that_are_none(options: Any) -> None:
    with pytest.raises(TypeError, match="FileParameter"):
        FileParameter(**options)


# Who may use an upload


def test_another_users_upload_is_as_if_it_did_not_exist(ann: User, bob: User) -> None:
    theirs = upload(ann).json()["upload"]
    said = {
        start(user, "measure", {"file": {"upload": reference}}).content
        for user in (bob, None, User.objects.create_user("staff", is_staff=True))
        for reference in (theirs, "0" * 40, "", "\0", "0" * 39 + "\0", "x" * 10_000, "\u0660" * 40)
    }
    assert [json.loads(one) for one in said] == [{"inputs": {"file": [NO_SUCH_UPLOAD]}}]
    assert not TaskInfo.objects.exists()
    assert is_kept(theirs)


def test_an_anonymous_upload_is_for_whoever_has_its_reference(ann: User) -> None:
    reference = upload().json()["upload"]
    assert start(None, "measure", {"file": {"upload": reference}}).status_code == 201
    assert start(ann, "measure", {"file": {"upload": reference}}).status_code == 201


def test_a_reference_that_stands_in_the_inputs_of_another_run_is_of_no_use(ann: User, bob: User) -> None:
    reference = upload(ann).json()["upload"]
    uuid = start(ann, "measure", {"file": {"upload": reference}}).json()["uuid"]
    assert start(bob, "measure", {"file": {"upload": reference}}).status_code == 400
    assert client_of(bob).get(f"/tasks/{uuid}/files/{reference}/").status_code == 404
    assert client_of(ann).get(f"/tasks/{uuid}/files/{reference}/").status_code == 404  # it is no output


@pytest.mark.parametrize(
    "value", ["0" * 40, 5, [], {}, {"upload": 5}, {"upload": None}, {"upload": "x", "path": "/etc/passwd"}, [[]]]
)
def test_what_is_no_reference_is_refused_in_words(ann: User, value: Any) -> None:
    answer = start(ann, "measure", {"file": value})
    assert answer.status_code == 400
    (sentence,) = answer.json()["inputs"]["file"]
    assert sentence.startswith('Expected a file that was uploaded, as {"upload": REFERENCE}. Got ')


def test_an_output_is_no_input(ann: User) -> None:
    info = execute(Report.start({"text": "x"}, user=ann).uuid)
    reference = info.outputs["report"]["url"].split("/")[-2]
    assert start(ann, "measure", {"file": {"upload": reference}}).status_code == 400


# How long it is kept


def test_an_upload_that_no_run_uses_goes_after_a_day(ann: User, media: Path) -> None:
    old, new, used = (upload(ann).json()["upload"] for _ in range(3))
    start(ann, "measure", {"file": {"upload": used}})
    StoredFile.objects.filter(reference=old).update(due=timezone.now() - timedelta(seconds=1))
    assert start(ann, "measure", {"file": {"upload": old}}).status_code == 400  # also before the sweep
    assert stored.clear() == 1
    assert [is_kept(reference) for reference in (old, new, used)] == [False, True, True]
    assert len(in_storage(media)) == StoredFile.objects.count() == 2
    kept = StoredFile.objects.get(reference=new)
    assert kept.due is not None
    assert abs(kept.due - kept.created - timedelta(days=1)) < timedelta(minutes=1)


def test_prunetasks_deletes_unused_uploads(ann: User, media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upload(ann)
    StoredFile.objects.update(due=timezone.now() - timedelta(seconds=1))
    call_command("prunetasks")
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


@pytest.mark.parametrize("how", ["run", "queryset", "user", "retention", "admin"])
def test_a_file_goes_with_its_run(how: str, ann: User, media: Path) -> None:
    reference = upload(ann).json()["upload"]
    info = execute(start(ann, "measure", {"file": {"upload": reference}}).json()["uuid"])
    report = execute(Report.start({"text": "x"}, user=ann).uuid)
    other = upload().json()["upload"]
    assert len(in_storage(media)) == 3
    match how:
        case "run":
            info.delete()
            report.delete()
        case "queryset":
            TaskInfo.objects.all().delete()
        case "user":
            ann.delete()
        case "retention":
            TaskInfo.objects.update(expires=timezone.now() - timedelta(seconds=1))
            assert upkeep.prune() == 2
        case "admin":
            admin = client_of(User.objects.create_superuser("root"))
            chosen = {"action": "delete_selected", "_selected_action": [info.pk, report.pk], "post": "yes"}
            assert admin.post("/admin/taskapi/taskinfo/", chosen).status_code == 302
    assert not TaskInfo.objects.exists()
    assert [row.reference for row in StoredFile.objects.all()] == [other]
    assert len(in_storage(media)) == 1


def test_unused_uploads_of_a_deleted_user_are_deleted_too(ann: User, media: Path) -> None:
    reference = upload(ann).json()["upload"]
    with transaction.atomic():
        ann.delete()
        assert start(None, "measure", {"file": {"upload": reference}}).status_code == 400  # not even now
        assert in_storage(media)
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


def test_a_file_stays_if_the_deletion_of_its_run_is_rolled_back(ann: User, media: Path) -> None:
    reference = upload(ann).json()["upload"]
    uuid = start(ann, "measure", {"file": {"upload": reference}}).json()["uuid"]
    with transaction.atomic():
        TaskInfo.objects.all().delete()
        transaction.set_rollback(True)
    assert is_kept(reference)
    assert execute(uuid).status == "succeeded"


def test_a_process_that_dies_before_it_has_deleted_the_file_of_a_run_leaves_it_to_the_sweep(
    ann: User, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, shared = (upload(ann).json()["upload"] for _ in range(2))
    first = start(ann, "pictures", {"files": [{"upload": alone}, {"upload": shared}]}).json()["uuid"]
    second = start(ann, "measure", {"file": {"upload": shared}}).json()["uuid"]
    with monkeypatch.context() as dead:
        dead.setattr("taskapi.files.clearing.release", lambda pk: None)
        TaskInfo.objects.filter(uuid=first).delete()
    assert is_kept(alone)
    assert start(ann, "measure", {"file": {"upload": shared}}).status_code == 201
    StoredFile.objects.exclude(due=None).update(due=timezone.now() - timedelta(seconds=1))
    assert stored.clear() == 1
    assert (is_kept(alone), is_kept(shared)) == (False, True)
    assert StoredFile.objects.get().due is None
    assert execute(second).status == "succeeded"


def test_a_retry_uses_the_file_again_and_keeps_it_when_the_first_run_goes(ann: User, media: Path) -> None:
    reference = upload(ann).json()["upload"]
    first = execute(start(ann, "measure", {"file": {"upload": reference}}).json()["uuid"])
    second = first.retry()
    first.delete()
    assert is_kept(reference)
    assert execute(second.uuid).status == "succeeded"
    second.refresh_from_db()
    third = second.retry()
    second.delete()
    assert execute(third.uuid).status == "succeeded"
    TaskInfo.objects.all().delete()
    assert not in_storage(media)


def test_two_runs_may_claim_one_upload(ann: User, media: Path) -> None:
    reference = upload(ann).json()["upload"]
    uuids = [start(ann, "measure", {"file": {"upload": reference}}).json()["uuid"] for _ in range(2)]
    TaskInfo.objects.filter(uuid=uuids[0]).delete()
    assert execute(uuids[1]).status == "succeeded"
    TaskInfo.objects.filter(uuid=uuids[1]).delete()
    assert not in_storage(media)


def test_an_upload_that_goes_between_the_look_and_the_start_leaves_no_run(ann: User) -> None:
    reference = upload(ann).json()["upload"]
    draft = runs.draft(Measure, {"file": {"upload": reference}}, user=ann)
    StoredFile.objects.update(due=timezone.now() - timedelta(seconds=1))
    assert stored.clear() == 1
    with pytest.raises(InvalidInputs, match="no such upload"):
        runs.save(draft)
    assert not TaskInfo.objects.exists()


def test_a_run_may_be_kept_for_no_time_at_all(ann: User, media: Path, settings: Any) -> None:
    settings.TASK_API_RETENTION = 0
    reference = upload(ann).json()["upload"]
    execute(start(ann, "measure", {"file": {"upload": reference}}).json()["uuid"])
    execute(Report.start({"text": "x"}, user=ann).uuid)
    TaskInfo.objects.update(expires=timezone.now() - timedelta(seconds=1))  # the clock of SQLite has milliseconds
    assert upkeep.prune() == 2
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


# A storage that fails


def test_a_storage_that_fails_while_it_saves_leaves_nothing(ann: User, settings: Any, media: Path) -> None:
    use_storage(settings, FullStorage)
    answer = upload(ann)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer["Retry-After"]
    assert not StoredFile.objects.exists()
    assert not in_storage(media)


def test_a_storage_that_does_not_delete_is_asked_again(
    ann: User, settings: Any, media: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference = upload(ann).json()["upload"]
    start(ann, "measure", {"file": {"upload": reference}})
    good, settings.STORAGES = (
        settings.STORAGES,
        {**settings.STORAGES, "default": {"BACKEND": f"{__name__}.StubbornStorage"}},
    )
    TaskInfo.objects.all().delete()
    assert "the storage is away" in caplog.text
    row = StoredFile.objects.get()
    assert not row.is_ready
    assert row.due is not None
    assert row.due > timezone.now() + TRY_AGAIN / 2
    assert stored.clear() == 0
    settings.STORAGES = good
    StoredFile.objects.update(due=timezone.now() - timedelta(seconds=1))
    assert stored.clear() == 1
    assert not in_storage(media)


def test_a_file_that_is_not_in_the_storage_any_more_does_not_keep_its_row(ann: User, media: Path) -> None:
    for storage in (FileSystemStorage, InMemoryStorage):
        upload(ann)
        for path in in_storage(media):
            path.unlink()
        StoredFile.objects.update(due=timezone.now() - timedelta(seconds=1))
        assert stored.clear() == 1, storage


def test_a_process_that_dies_while_it_stores_a_file_leaves_a_row_that_a_sweep_finds(media: Path) -> None:
    class Killed(BaseException):
        """No `except` of ours is to see it: as if the process were gone."""

    row = stored.store_upload(ContentFile(b"x", "x"), None)
    StoredFile.objects.filter(pk=row.pk).update(is_ready=False, due=timezone.now() - timedelta(seconds=1))
    assert stored.clear() == 1
    assert not in_storage(media)


# Storages


def test_a_project_may_have_a_storage_for_these_files_alone(ann: User, settings: Any, media: Path) -> None:
    settings.STORAGES = {**settings.STORAGES, "taskapi": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
    reference = upload(ann).json()["upload"]
    assert not in_storage(media)
    assert isinstance(get_storage(), InMemoryStorage)
    assert execute(start(ann, "measure", {"file": {"upload": reference}}).json()["uuid"]).status == "succeeded"
    (location,) = StoredFile.objects.values_list("location", flat=True)
    TaskInfo.objects.all().delete()
    assert not get_storage().exists(location)


# From Python


def test_a_file_is_given_to_start_and_stored(ann: User, media: Path) -> None:
    for given in (SimpleUploadedFile("d.csv", b"a;b", "text/csv"), ContentFile("a;b", "d.csv"), _open(media, b"a;b")):
        info = Measure.start({"file": given}, user=ann)
        assert list(info.inputs) == ["file"]
        given.close()
        assert execute(info.uuid).outputs["seen"] | {"name": ""} == {
            "name": "",
            "size": 3,
            "content_type": "text/csv",
            "text": "a;b",
        }
    assert len(in_storage(media / "taskapi")) == 3
    TaskInfo.objects.all().delete()
    assert not in_storage(media / "taskapi")


def _open(media: Path, content: bytes) -> Any:
    media.mkdir(exist_ok=True)
    path = media / "data.csv"
    path.write_bytes(content)
    return path.open("rb")


def test_a_stream_that_can_be_read_once_is_stored(ann: User) -> None:
    class Pipe(io.RawIOBase):
        left = [b"abc", b"def"]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part = self.left.pop(0) if self.left else b""
            buffer[: len(part)] = part
            return len(part)

    info = execute(Measure.start({"file": File(Pipe(), "pipe.bin")}, user=ann).uuid)
    assert info.outputs["seen"]["text"] == "abcdef"


@pytest.mark.parametrize("inputs", [{}, {"other": 1}])
def test_nothing_is_kept_of_a_start_that_is_refused(inputs: Any, media: Path) -> None:
    class Two(Task):
        name = "two"
        inputs = {"file": FileParameter(), "other": FileParameter()}

    given = {"file": ContentFile(b"x", "x"), **inputs}
    with pytest.raises(InvalidInputs):
        Two.start(given)
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


def test_nothing_is_kept_of_a_start_that_validate_refuses(media: Path) -> None:
    class Picky(Measure):
        @classmethod
        def validate(cls, inputs: Any, *, user: Any) -> Any:
            assert inputs["file"].read() == b"x"
            from django.core.exceptions import ValidationError

            raise ValidationError("No.")

    with pytest.raises(InvalidInputs):
        Picky.start({"file": ContentFile(b"x", "x")})
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


def test_validate_may_look_into_the_file_and_the_run_reads_it_from_its_beginning(ann: User) -> None:
    class Looks(Measure):
        @classmethod
        def validate(cls, inputs: Any, *, user: Any) -> Any:
            assert inputs["file"].read(3) == b"a,b"
            return inputs

    for given in (ContentFile(b"a,b\n1,2\n", "x"), {"upload": upload(ann).json()["upload"]}):
        assert run_task(Looks, {"file": given}, user=ann).outputs["seen"]["text"] == "a,b\n1,2\n"
    assert StoredFile.objects.count() == 2


def test_run_task_takes_a_file(media: Path) -> None:
    run = run_task(Measure, {"file": SimpleUploadedFile("people.csv", b"ann", "text/csv")})
    assert run.outputs == {"seen": {"name": "people.csv", "size": 3, "content_type": "text/csv", "text": "ann"}}


async def test_arun_task_takes_a_file() -> None:
    run = await arun_task(AsyncMeasure, {"file": ContentFile(b"ann", "people.csv")})
    assert run.outputs is not None
    assert run.outputs["seen"]["text"] == "ann"


def test_start_many_takes_files_and_stores_all_or_none(ann: User, media: Path) -> None:
    infos = Measure.start_many([{"file": ContentFile(b"1", "a")}, {"file": ContentFile(b"2", "b")}], user=ann)
    assert [execute(info.uuid).outputs["seen"]["text"] for info in infos] == ["1", "2"]
    with pytest.raises(InvalidInputs):
        Measure.start_many([{"file": ContentFile(b"1", "a")}, {"file": 5}])
    assert len(in_storage(media)) == 2
    infos[0].delete()
    assert len(in_storage(media)) == 1


def test_an_idempotency_key_compares_what_is_in_the_files(ann: User, media: Path) -> None:
    def begin(content: bytes) -> TaskInfo:
        return Measure.start({"file": ContentFile(content, "x.csv")}, user=ann, idempotency_key="k")

    first = begin(b"1")
    assert begin(b"1").uuid == first.uuid
    with pytest.raises(IdempotencyConflict):
        begin(b"2")
    assert len(in_storage(media)) == StoredFile.objects.count() == 1
    reference = client_of(ann).post("/tasks/uploads/", {"file": ContentFile(b"1", "x.csv")}).json()["upload"]
    same = Measure.start({"file": {"upload": reference}}, user=ann, idempotency_key="k")
    assert same.uuid == first.uuid
    for _ in range(2):
        many = Measure.start_many([{"file": ContentFile(b"1", "y")}] * 2, user=ann, idempotency_key="many")
    assert len(many) == 2
    assert len(in_storage(media)) == StoredFile.objects.count() == 4


def test_the_file_of_a_run_is_closed_when_the_run_has_ended(ann: User) -> None:
    kept: list[Any] = []

    class Keeps(Measure):
        def run(self, file: Any) -> Any:
            file.read(1)
            with file.open() as again:
                assert again.read(1) == b"x"
            file.open()
            text = io.TextIOWrapper(file, "utf-8")
            assert text.read() == "xyz"
            kept.append(file.open())
            file.read()
            return None

    run = run_task(Keeps, {"file": ContentFile(b"xyz", "x")})
    assert run.status == "succeeded", run
    assert kept[0].closed
    with pytest.raises(ValueError, match="closed"):
        kept[0].read()


def test_a_file_that_is_gone_fails_the_run_in_words(ann: User, media: Path) -> None:
    info = Measure.start({"file": ContentFile(b"x", "x")}, user=ann)
    FileUse.objects.all().delete()
    ended = execute(info.uuid)
    assert ended.error == {
        "code": "task_error",
        "message": "A file among the inputs of this run is not there any more.",
    }


# Files that a run returns


def test_a_run_returns_a_file(ann: User, bob: User) -> None:
    info = execute(Report.start({"text": "a,b\n"}, user=ann).uuid)
    assert info.outputs == {
        "report": {
            "name": "report.csv",
            "size": 4,
            "content_type": "text/csv",
            "url": f"/tasks/{info.uuid}/files/{info.files.get().reference}/",
        }
    }
    answer = fetch(ann, info.outputs["report"]["url"])
    assert answer.status_code == 200
    assert answer.body == b"a,b\n"
    assert answer["Content-Disposition"] == 'attachment; filename="report.csv"'
    assert answer["Content-Length"] == "4"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer["Content-Security-Policy"]
    head = client_of(ann).head(info.outputs["report"]["url"])
    assert (head.status_code, head["Content-Length"], b"".join(head.streaming_content)) == (200, "4", b"")
    assert read(info.files.get()) == b"a,b\n"


def test_a_stranger_cannot_fetch_what_a_run_returned(ann: User, bob: User) -> None:
    info = execute(Report.start({"text": "x"}, user=ann).uuid)
    url = info.outputs["report"]["url"]
    assert fetch(bob, url).status_code == fetch(None, url).status_code == 404
    theirs = execute(Report.start({"text": "x"}, user=bob).uuid)
    mixed = url.replace(str(info.uuid), str(theirs.uuid))  # of a run that he may see, a file that he may not
    assert fetch(bob, mixed).status_code == 404
    for reference in ("0" * 40, "x", "0" * 400):
        assert client_of(ann).get(f"/tasks/{info.uuid}/files/{reference}/").status_code == 404
    assert fetch(User.objects.create_user("staff", is_staff=True), url).status_code == 200


@pytest.mark.parametrize("name", ["x.html", "x.svg", "x.xhtml", "x.xml", "x.js", "x.mjs", "x.pdf", "X.HTM"])
def test_nothing_that_a_browser_would_execute_is_served_as_what_it_is(name: str, ann: User) -> None:
    info = execute(Report.start({"text": "<script>alert(1)</script>", "name": name}, user=ann).uuid)
    answer = fetch(ann, info.outputs["report"]["url"])
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment")


def test_a_name_cannot_break_out_of_its_header(ann: User) -> None:
    name = 'a"; filename="evil.exe\r\nSet-Cookie: x=y; ü.csv'
    info = execute(Report.start({"text": "x", "name": name}, user=ann).uuid)
    answer = fetch(ann, info.outputs["report"]["url"])
    assert answer["Content-Disposition"].startswith("attachment; filename*=utf-8''a%22%3B%20filename%3D%22evil.exe")
    assert not answer.cookies


@pytest.mark.parametrize("how", ["no file", "too large", "unreadable"])
def test_a_run_that_does_not_succeed_leaves_no_file(how: str, media: Path) -> None:
    run = run_task(TwoReports, {"how": how})
    assert run.status == "failed"
    assert not in_storage(media)
    assert not StoredFile.objects.exists()
    assert run_task(TwoReports, {"how": "good"}).status == "succeeded"
    assert len(in_storage(media)) == StoredFile.objects.filter(is_ready=True, due=None).count() == 2


def test_a_storage_that_is_full_fails_the_run_and_leaves_nothing(settings: Any, media: Path) -> None:
    use_storage(settings, FullStorage)
    run = run_task(Report, {"text": "x"})
    assert run.error is not None
    assert run.error["code"] == "exception"
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


def test_what_a_lost_attempt_has_stored_goes_when_the_run_ends(ann: User, media: Path) -> None:
    info = Report.start({"text": "x"}, user=ann)
    from taskapi.files.storing import store_output

    store_output(ContentFile(b"of a worker that was killed then", "x"), info)
    ended = execute(info.uuid)
    assert read(ended.files.get()) == b"x"
    assert stored.clear() == 1
    assert len(in_storage(media)) == 1


def test_a_run_that_is_deleted_while_its_file_is_stored_leaves_nothing(ann: User, media: Path) -> None:
    class Deletes(Report):
        def run(self, text: str, name: str) -> Any:
            class Late(ContentFile):
                def chunks(this, chunk_size: int | None = None) -> Any:  # noqa: N805
                    TaskInfo.objects.filter(pk=self.info.pk).delete()
                    return super().chunks(chunk_size)

            return Late(b"x", "x")

    info = runs.draft(Deletes, {"text": ""}, user=ann)
    info = runs.save(info).info
    immediate.execute(info.uuid, Deletes)
    stored.clear()
    assert not in_storage(media)
    assert not StoredFile.objects.exists()


def test_a_project_that_has_not_mounted_the_urls_gets_no_link(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.unit.csrf_site"
    run = run_task(Report, {"text": "x"})
    assert run.outputs is not None
    assert run.outputs["report"]["size"] == 1


def test_a_link_has_the_prefix_of_the_site(settings: Any) -> None:
    settings.FORCE_SCRIPT_NAME = "/site"
    run = run_task(Report, {"text": "x"})
    assert run.outputs is not None
    assert run.outputs["report"]["url"].startswith(f"/site/tasks/{run.info.uuid}/files/")


# Files in place


EXPECTED = "Expected the fields `task` and `inputs`, each once, and files that are named `inputs.NAME`."


def multipart(user: User | None, parts: Any, **headers: Any) -> Any:
    return client_of(user).post("/tasks/", parts, headers=headers)


def test_a_start_in_parts_has_its_files_in_place(ann: User, media: Path) -> None:
    answer = multipart(ann, {"task": "measure", "inputs": "{}", "inputs.file": ContentFile(b"a", "a.csv")})
    assert answer.status_code == 201
    assert execute(answer.json()["uuid"]).outputs["seen"]["text"] == "a"
    two = {"task": "pictures", "inputs.files": [ContentFile(b"a", "a.csv"), ContentFile(b"b", "b.csv")]}
    answer = multipart(ann, two)
    assert execute(answer.json()["uuid"]).outputs == {"names": ["a.csv", "b.csv"]}
    one = multipart(ann, {"task": "pictures", "inputs.files": ContentFile(b"a", "a.csv")})
    assert execute(one.json()["uuid"]).outputs == {"names": ["a.csv"]}
    plain = multipart(ann, {"task": "report", "inputs": '{"text": "x"}'})
    assert execute(plain.json()["uuid"]).outputs["report"]["size"] == 1


@pytest.mark.parametrize(
    ("parts", "detail"),
    [
        ({"inputs.file": "F"}, {"task": ["This field is required."]}),
        ({"task": "measure", "inputs": "[1"}, {"inputs": ["Expected JSON."]}),
        ({"task": "measure", "inputs": "NaN"}, {"inputs": ["Expected JSON."]}),
        ({"task": "measure", "inputs": "[]", "inputs.file": "F"}, {"inputs": ["Expected a JSON object. Got list."]}),
        (
            {"task": "measure", "inputs": '{"file": 1}', "inputs.file": "F"},
            {"inputs": {"file": ["It is given twice: in `inputs`, and as `inputs.file`."]}},
        ),
        ({"task": "measure", "file": "F"}, {"non_field_errors": [f"{EXPECTED} Got file."]}),
        ({"task": "measure", "many": "[]", "x": "y"}, {"non_field_errors": [f"{EXPECTED} Got many, x."]}),
        ({"task": ["measure", "report"]}, {"non_field_errors": [f"{EXPECTED} Got task."]}),
        (
            {"task": "report", "inputs": '{"text": "x"}', "inputs.name": "F"},
            {"inputs": {"name": ["Not a valid string."]}},
        ),
    ],
)
def test_a_start_in_parts_that_is_wrong_is_refused_in_words(parts: Any, detail: Any, ann: User, media: Path) -> None:
    given = {name: ContentFile(b"x", "x") if value == "F" else value for name, value in parts.items()}
    answer = multipart(ann, given)
    assert (answer.status_code, answer.json()) == (400, detail)
    assert not in_storage(media)
    assert not TaskInfo.objects.exists()


def test_files_in_place_are_bounded(ann: User, settings: Any, media: Path) -> None:
    settings.TASK_API_LIMITS = {"upload_bytes": 1000}
    for size in (1001, 100_000):
        answer = multipart(ann, {"task": "measure", "inputs.file": ContentFile(b"x" * size, "a")})
        assert answer.status_code == 413
    settings.DATA_UPLOAD_MAX_NUMBER_FILES = 2
    answer = multipart(ann, {"task": "pictures", "inputs.files": [ContentFile(b"x", "a") for _ in range(3)]})
    assert answer.status_code == 400
    assert not in_storage(media)


def test_a_start_in_parts_with_a_key_may_be_repeated(ann: User, media: Path) -> None:
    def begin(content: bytes) -> Any:
        return multipart(
            ann, {"task": "measure", "inputs.file": ContentFile(content, "a.csv")}, **{"Idempotency-Key": "k"}
        )

    first, again, other = begin(b"1"), begin(b"1"), begin(b"2")
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)
    assert first.json()["uuid"] == again.json()["uuid"]
    assert len(in_storage(media)) == 1


def test_a_start_in_parts_that_is_not_permitted_stores_nothing(settings: Any, media: Path) -> None:
    settings.TASK_API_PERMISSIONS_CLASSES = ["rest_framework.permissions.IsAuthenticated"]
    assert multipart(None, {"task": "measure", "inputs.file": ContentFile(b"x", "a")}).status_code == 403
    assert not in_storage(media)


@pytest.mark.parametrize("user", [None, "ann"])
def test_with_atomic_requests_all_is_the_same(user: str | None, ann: User, media: Path, settings: Any) -> None:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        caller = ann if user else None
        reference = upload(caller).json()["upload"]
        assert start(caller, "measure", {"file": {"upload": reference}}).status_code == 201
        multi = multipart(caller, {"task": "measure", "inputs.file": ContentFile(b"x", "a")})
        assert execute(multi.json()["uuid"]).status == "succeeded"
        assert multipart(caller, {"task": "measure", "inputs.files": ContentFile(b"x", "a")}).status_code == 400
        use_storage(settings, FullStorage)
        assert multipart(caller, {"task": "measure", "inputs.file": ContentFile(b"x", "a")}).status_code == 503
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert len(in_storage(media)) == StoredFile.objects.count() == 2


# What describes it


def test_a_schema_tells_an_upload_from_a_file_that_is_returned() -> None:
    described = Pictures.describe()["inputs"]["properties"]["files"]["items"]
    assert described["required"] == ["upload"]
    assert (described["x-max-bytes"], described["x-content-types"]) == (10, ["image/*", "text/csv"])
    assert set(Report.describe()["outputs"]["properties"]["report"]["required"]) == {
        "name",
        "size",
        "content_type",
        "url",
    }
