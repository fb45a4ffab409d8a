"""Where runs are found: below a path that a proxy takes off or leaves, and from a page of another origin."""

import re
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.test import AsyncClient, Client

from taskapi.models import TaskInfo
from taskapi.params import IntParameter
from taskapi.tasks import Task

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("queue")]

DEPLOYMENT = Path(__file__).parents[2] / "docs" / "deployment.md"
PAGE = {"Origin": "https://app.example"}


class Add(Task):
    name = "add"
    inputs = {"a": IntParameter()}


BODY = {"task": "add", "inputs": {"a": 1}}


@pytest.fixture(autouse=True)
def project(settings):
    settings.TASK_API_BACKGROUND_TASKS = [Add]
    return settings


@pytest.mark.parametrize("path", ["/app/tasks/", "/tasks/"], ids=["the whole path", "without /app"])
@pytest.mark.django_db(transaction=True)
async def test_the_location_of_a_run_is_the_one_that_the_browser_knows_whatever_the_proxy_passes_on(project, path):
    project.FORCE_SCRIPT_NAME = "/app"
    response = await AsyncClient().post(path, BODY, content_type="application/json")
    assert response.headers["Location"] == f"/app/tasks/{response.json()['uuid']}/"
    await TaskInfo.objects.aupdate(status="failed")
    again = await AsyncClient().post(f"{path}{response.json()['uuid']}/retry/")
    assert again.headers["Location"] == f"/app/tasks/{again.json()['uuid']}/"


def test_without_a_path_in_front_it_is_below_tasks():
    response = Client().post("/tasks/", BODY, content_type="application/json")
    assert response.headers["Location"] == f"/tasks/{response.json()['uuid']}/"


def test_behind_a_proxy_that_ends_tls_a_logged_in_post_needs_the_setting_that_the_docs_name(project, admin_user):
    passed_on = {"X-Forwarded-Proto": "https", "Origin": "https://testserver", "Host": "testserver"}
    client = Client(enforce_csrf_checks=True, headers=passed_on)
    client.get("/admin/login/")
    token = client.cookies["csrftoken"].value
    client.force_login(admin_user)
    start = {"data": BODY, "content_type": "application/json", "headers": {"X-CSRFToken": token}}
    refused = client.post("/tasks/", **start)
    assert (refused.status_code, "Origin checking failed" in refused.json()["detail"]) == (403, True)
    assert 'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")' in DEPLOYMENT.read_text()
    project.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    start["headers"]["Referer"] = "https://testserver/"
    assert client.post("/tasks/", **start).status_code == 201


# Another origin


@pytest.fixture
def cors(project):
    """The settings that the docs name for django-cors-headers."""
    pytest.importorskip("corsheaders", reason="django-cors-headers is in the extra `dev`")
    section = DEPLOYMENT.read_text().partition("## A page of another origin")[2]
    (sample,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:1]
    names = ("INSTALLED_APPS", "MIDDLEWARE", "ALLOWED_HOSTS")
    named = {name: list(getattr(django_settings, name)) for name in names}
    exec(sample, named)  # noqa: S102 - of our own page
    for name, value in named.items():
        if name.isupper():
            setattr(project, name, value)


def preflight(**asked):
    return Client().options("/tasks/", headers={**PAGE, "Access-Control-Request-Method": "POST", **asked})


@pytest.mark.usefixtures("cors")
def test_a_page_of_another_origin_may_send_what_the_client_sends():
    answer = preflight(**{"Access-Control-Request-Headers": "content-type,idempotency-key,authorization,x-csrftoken"})
    allowed = {name.strip() for name in answer.headers["Access-Control-Allow-Headers"].split(",")}
    assert {"content-type", "idempotency-key", "authorization", "x-csrftoken"} <= allowed
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


@pytest.mark.usefixtures("cors")
def test_a_page_of_another_origin_reads_answers_and_refusals():
    headers = {**PAGE, "Idempotency-Key": "k"}
    started = Client().post("/tasks/", BODY, content_type="application/json", headers=headers)
    assert started.status_code == 201
    assert started.headers["Access-Control-Expose-Headers"] == "ETag, Location, Preference-Applied, Retry-After"
    refused = Client().post("/tasks/", {"task": "?"}, content_type="application/json", headers=PAGE)
    gone = Client().get(f"/tasks/{started.json()['uuid'][:-1]}0/", headers=PAGE)
    for answer in (started, refused, gone):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
