"""The demo's tasks. The first is a real job on real input; the other two are the samples of the 1.x documentation."""

from __future__ import annotations

import json
from datetime import timedelta
from importlib.resources import files
from pathlib import PurePath
from time import sleep
from typing import Any

from django.core.files.base import ContentFile, File

from demo import profiling
from taskapi.exceptions import TaskError
from taskapi.params import (
    BooleanParameter,
    DictParameter,
    FileParameter,
    IntParameter,
    ListParameter,
    NumberParameter,
)
from taskapi.tasks import Task

# 28,000 airports with 11 fields each, from the package airportsdata (Mike Borsetti and others, MIT licence).
AIRPORTS = files("airportsdata") / "airports.csv"

MAX_BYTES = 250_000_000  # of a file: a little less than the server takes (`upload_bytes` of TASK_API_LIMITS)
MAX_MESSAGES = 50  # rows with problems that get a message of their own: more would flood the page


class ProfileCsv(Task):
    """Profile a CSV file column by column, and report the rows that do not parse."""

    name = "profile-csv"
    retain = timedelta(days=1)  # the file goes with its run

    inputs = {
        "file": FileParameter(required=False, max_bytes=MAX_BYTES, help_text="Without it: the bundled airports."),
    }

    outputs = {
        "rows": IntParameter(),
        "problems": IntParameter(),
        "duplicates": IntParameter(),
        "duplicates_is_bound": BooleanParameter(),
        "columns": ListParameter(DictParameter()),
        "charts": DictParameter(),
        "report": FileParameter(),
    }

    def run(self, file: File[bytes] | None = None) -> dict[str, Any]:
        source: Any = AIRPORTS.open("rb") if file is None else file
        try:
            table = profiling.read(source)
        except ValueError as error:
            raise TaskError(str(error)) from error

        profile = profiling.Profile(table)
        for note in [*table.notes, *profile.notes()]:
            self.add_message({"text": note})

        self.set_target(table.lines)
        for batch in table.batches():
            room = max(0, MAX_MESSAGES - profile.problems)
            for line, problem in profile.add(batch)[:room]:
                self.add_message({"line": line, "text": problem})
            if picture := profile.picture():
                self.add_message({"picture": picture})
            self.set_progress(batch.end)

        self.set_progress(table.lines)
        if profile.problems > MAX_MESSAGES:
            self.add_message({"text": f"… and {profile.problems - MAX_MESSAGES:,} more rows with problems."})
        summary = profile.summary()
        report = json.dumps(
            {name: summary[name] for name in summary if name != "charts"}, indent=2, ensure_ascii=False
        ).encode()
        return {**summary, "report": ContentFile(report, report_name(file))}


def report_name(file: File[bytes] | None) -> str:
    """Return the name of the report on a file: "apples-profile.json" on "apples.csv"."""
    return f"{PurePath(file.name or 'file').stem if file else 'airports'}-profile.json"


class SumNumbers(Task):
    """Add numbers."""

    name = "sum"

    inputs = {
        "numbers": ListParameter(NumberParameter()),
    }

    outputs = {
        "sum": NumberParameter(),
    }

    def run(self, numbers: list[float]) -> float:
        return sum(numbers)


class WaitTask(Task):
    """Count seconds."""

    name = "wait"

    inputs = {
        "seconds": IntParameter(required=False, min_value=0, max_value=3600),
    }

    def run(self, seconds: int = 10) -> None:
        self.set_target(seconds)
        self.set_progress(0)

        for _ in range(seconds):
            sleep(1)
            self.inc_progress(1)
