"""When a worker executes a run, parameters know the run and its user."""

from uuid import UUID

import pytest
from django.contrib.auth.models import User

from taskapi.models import TaskInfo
from taskapi.params import ListParameter, Parameter, current_context
from taskapi.tasks import Task
from taskapi.workers.executor import Executor

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("memory_layer", "queue")]


class Whose(Parameter):
    """Converts every value to the user and the run of its context."""

    def to_python(self, value):
        return self.to_json(value)

    def to_json(self, value):
        context = current_context()
        return [context.user and context.user.username, context.run and str(context.run.uuid)]


class Sync(Task):
    name = "whose"
    inputs = {"given": Whose()}
    outputs = {"given": Parameter(), "outputs": ListParameter(Whose())}

    def run(self, given):
        return {"given": given, "outputs": [1]}


class Async(Sync):
    async def run(self, given):
        return {"given": given, "outputs": [1]}


async def execute(uuid: UUID) -> None:
    executor = Executor(1)
    try:
        await executor.execute(uuid)
    finally:
        await executor.close()


@pytest.mark.parametrize("task", [Sync, Async])
@pytest.mark.parametrize("name", ["ann", None])
async def test_inputs_and_outputs_are_converted_for_the_user_and_the_run(settings, task, name):
    settings.TASK_API_BACKGROUND_TASKS = [task]
    user = await User.objects.acreate(username=name) if name else None
    info = await task.astart({"given": 1}, user=user)
    assert info.inputs == {"given": [name, None]}, "no run exists yet"
    await execute(info.uuid)
    info = await TaskInfo.objects.aget()
    assert info.error is None
    assert info.outputs == {"given": [name, str(info.uuid)], "outputs": [[name, str(info.uuid)]]}
