"""The test project with tasks that tell what becomes of them, and a channel layer of the test's choice."""

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
    "tests.faults.tasks.Work",
    "tests.faults.tasks.AsyncWork",
    "tests.faults.tasks.FlakyWork",
    "tests.faults.tasks.GatedWork",
    "tests.faults.tasks.LargeWork",
    "tests.faults.tasks.TalkativeWork",
    "tests.faults.tasks.BilledWork",
    "tests.faults.tasks.FleetingWork",
    "tests.faults.tasks.ThreadedWork",
    "tests.faults.tasks.SensitiveWork",
    "tests.faults.tasks.CrowdedWork",
    "tests.faults.isolated.Stuck",
    "tests.faults.isolated.Alone",
    "tests.faults.isolated.IsolatedWork",
]
if "FAULTS_OLD_CODE" not in os.environ:
    TASK_API_BACKGROUND_TASKS += ["tests.faults.tasks.New"]  # what a worker of an older deploy does not know

FAULTS_JOURNAL = os.environ.get("FAULTS_JOURNAL", "")  # a folder where each execution leaves a line

if "FAULTS_LAYER" in os.environ:
    CHANNEL_LAYERS = {"taskapi": json.loads(os.environ["FAULTS_LAYER"])}
