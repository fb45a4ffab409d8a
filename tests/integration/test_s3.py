"""Files in a storage that speaks S3: django-storages, against a server that speaks it too."""

import json
import os
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.test import Client
from moto.server import ThreadedMotoServer

from taskapi.engines import immediate
from taskapi.models import StoredFile, TaskInfo
from taskapi.params import FileParameter, StringParameter
from taskapi.tasks import Task
from tests.support.stack import free_port

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of those packages
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # boto3 keeps its connections
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BUCKET = "files"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


class Reverse(Task):
    name = "reverse"
    inputs = {"file": FileParameter(), "note": StringParameter(default="")}
    outputs = {"file": FileParameter(), "note": StringParameter()}

    def run(self, file: Any, note: str) -> Any:
        return {"file": ContentFile(file.read()[::-1], f"reversed {file.name}"), "note": note}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    server.start()
    yield f"http://127.0.0.1:{server._port}"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture
def bucket(server: str, settings: Any) -> Any:
    """An empty bucket, which is the storage of the project."""
    settings.TASK_API_BACKEND = "taskapi.testing.RecordingBackend"
    settings.TASK_API_BACKGROUND_TASKS = [Reverse]
    options = {"bucket_name": BUCKET, "endpoint_url": server, "addressing_style": "path", "signature_version": "s3v4"}
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options},
    }
    bucket = boto3.resource("s3", endpoint_url=server).Bucket(BUCKET)
    bucket.create()
    bucket.objects.all().delete()
    return bucket


def keys(bucket: Any) -> list[str]:
    return [found.key for found in bucket.objects.all()]


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("ann"))
    return client


def run_one(client: Client, content: bytes, **inputs: Any) -> TaskInfo:
    given = client.post("/tasks/uploads/", {"file": ContentFile(content, "a.html")}).json()
    call = {"task": "reverse", "inputs": {"file": given, **inputs}}
    uuid = client.post("/tasks/", json.dumps(call), content_type="application/json").json()["uuid"]
    info = TaskInfo.objects.get(uuid=uuid)
    immediate.execute(info.uuid)
    info.refresh_from_db()
    assert info.status == "succeeded", info.error
    return info


def test_a_file_is_fetched_by_the_storages_own_signed_link(bucket: Any, client: Client) -> None:
    info = run_one(client, b"abc")
    url = info.outputs["file"]["url"]
    answer = client.get(url)
    assert (answer.status_code, answer["Cache-Control"]) == (302, "private, no-store")
    assert "X-Amz-Signature" in answer["Location"]
    fetched = httpx.get(answer["Location"])
    assert (fetched.status_code, fetched.content) == (200, b"cba")
    assert fetched.headers["content-disposition"] == 'attachment; filename="reversed a.html"'
    assert fetched.headers["content-type"] == "application/octet-stream"
    assert Client().get(url).status_code == 404


def test_files_and_values_go_with_their_run(bucket: Any, client: Client, settings: Any) -> None:
    settings.TASK_API_OFFLOAD_BYTES = 1_000
    info = run_one(client, os.urandom(6_000_000), note="x" * 2_000)
    assert info.outputs["note"] == "x" * 2_000
    assert info.outputs["file"]["size"] == 6_000_000
    assert len(keys(bucket)) == 4
    assert all(key.startswith("taskapi/") and "a.html" not in key for key in keys(bucket))
    assert info.retry().inputs["note"] == "x" * 2_000
    TaskInfo.objects.all().delete()
    assert keys(bucket) == []
    assert not StoredFile.objects.exists()
