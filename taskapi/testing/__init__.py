"""A kit for the tests of a project; docs/testing.md shows how it is used."""

from taskapi.testing.recording import RecordingBackend, started_runs
from taskapi.testing.running import FinishedRun, arun_task, run_task
from taskapi.testing.working import worker

__all__ = ["FinishedRun", "RecordingBackend", "arun_task", "run_task", "started_runs", "worker"]
