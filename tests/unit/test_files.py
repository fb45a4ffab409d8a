"""Files: uploaded, given to a run, returned by it, and deleted with it."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from django.utils import timezone

from taskapi import files, runs
from taskapi.exceptions import IdempotencyConflict, InvalidInputs
from taskapi.models import FileUse, StoredFile, TaskInfo
from taskapi.params import FileParameter, JSONParameter, ListParameter, StringParameter
from taskapi.tasks import Task
from taskapi.testing import arun_task, run_task
from taskapi.workers import upkeep

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue")]


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


TASKS = [Measure, AsyncMeasure, Pictures, Report]


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


def execute(uuid: str) -> TaskInfo:
    from taskapi.engines import immediate

    immediate.execute(UUID(uuid))
    return TaskInfo.objects.get(uuid=uuid)


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
