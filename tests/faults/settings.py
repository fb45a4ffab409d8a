"""The test project, with tasks that record their executions, and the channel layer that a test chooses."""

import json
import os

from tests.project.settings import *  # noqa: F403
from tests.project.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults"]  # it has a model that points to runs
ROOT_URLCONF = "tests.faults.urls"

TASK_API_BACKGROUND_TASKS = [
    "tests.faults.tasks.Hold",
    "tests.faults.tasks.Deaf",
    "tests.faults.tasks.Precious",
    "tests.faults.tasks.Spent",
    "tests.faults.tasks.AsyncHold",
    "tests.faults.tasks.AsyncDeaf",
    "tests.faults.tasks.Loop",
    "tests.faults.tasks.OwnHold",
    "tests.faults.tasks.OwnAsyncHold",
    "tests.faults.tasks.OwnLoop",
    "tests.faults.tasks.Slow",
    "tests.faults.tasks.AsyncSlow",
    "tests.faults.tasks.Flaky",
    "tests.faults.tasks.Burst",
    "tests.faults.tasks.AsyncQuery",
    "tests.faults.tasks.HalfWay",
    "tests.faults.tasks.Brief",
    "tests.faults.deadly.Deadly",
    "tests.faults.work.Work",
    "tests.faults.work.AsyncWork",
    "tests.faults.work.FlakyWork",
    "tests.faults.work.GatedWork",
    "tests.faults.work.LargeWork",
    "tests.faults.work.TalkativeWork",
    "tests.faults.work.BilledWork",
    "tests.faults.work.FleetingWork",
    "tests.faults.work.ThreadedWork",
    "tests.faults.work.SensitiveWork",
    "tests.faults.work.CrowdedWork",
    "tests.faults.isolated.Stuck",
    "tests.faults.isolated.Alone",
    "tests.faults.isolated.IsolatedWork",
]
if "FAULTS_OLD_CODE" not in os.environ:
    TASK_API_BACKGROUND_TASKS += ["tests.faults.tasks.New"]  # what a worker of an older deploy does not know

FAULTS_JOURNAL = os.environ.get("FAULTS_JOURNAL", "")  # a folder with a file for each run

if "FAULTS_LAYER" in os.environ:
    CHANNEL_LAYERS = {"taskapi": json.loads(os.environ["FAULTS_LAYER"])}
