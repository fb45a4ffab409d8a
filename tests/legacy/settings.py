"""The settings of the 1.x documentation: both names of the list of tasks, dotted paths and classes."""

from tests.legacy.background import MyTask, SumNumbers
from tests.project.settings import *  # noqa: F403

TASK_API_BACKGROUND_TASKS = [
    "tests.legacy.background.WaitTask",
    "tests.legacy.background.Items",
    "tests.legacy.background.NiceToHave",
    "tests.legacy.background.OneOutput",
    "tests.legacy.background.TwoOutputs",
    "tests.legacy.background.ProcessLines",
    SumNumbers,
]

TASK_API_BACKGROUND_CLASSES = [MyTask]
