"""`Prefer: wait=S` in a project's own tests, which use Django's clients and its TestCase."""

from django.test import TestCase, override_settings

from taskapi.models import TaskInfo
from taskapi.tasks import Task

LONG = "wait=60"


class Quick(Task):
    name = "quick"

    def run(self):
        pass


@override_settings(
    TASK_API_BACKEND="taskapi.backends.immediate.ImmediateBackend",
    TASK_API_BACKGROUND_TASKS=[Quick],
)
class TestInATestCase(TestCase):
    """Each test is one transaction, which the request shares."""

    def start(self):
        with self.captureOnCommitCallbacks(execute=True):
            return Quick.start({})

    def test_a_run_that_is_executed_at_once_is_answered_at_once(self):
        answer = self.client.get(f"/tasks/{self.start().uuid}/", headers={"Prefer": LONG})
        assert (answer.status_code, answer.json()["status"], answer["Preference-Applied"]) == (200, "succeeded", LONG)

    def test_a_run_that_does_not_end_is_waited_for(self):
        info = TaskInfo.objects.create(task="quick", status="running", attempt=1)
        answer = self.client.get(f"/tasks/{info.uuid}/", headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.json()["status"]) == (200, "running")
        assert TaskInfo.objects.exists(), "the connection of the test's transaction was not closed"

    async def test_so_it_is_with_an_async_client(self):
        info = await TaskInfo.objects.acreate(task="quick", status="running", attempt=1)
        answer = await self.async_client.get(f"/tasks/{info.uuid}/", headers={"Prefer": "wait=1"})
        assert (answer.status_code, answer.json()["status"]) == (200, "running")
        assert await TaskInfo.objects.aexists()
