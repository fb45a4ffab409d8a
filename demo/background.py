"""The demo's tasks. The first is a real job on real input; the other two are the samples of the 1.x documentation."""

from importlib.resources import files
from time import sleep
from typing import Any

from demo import profiling
from taskapi.exceptions import TaskError
from taskapi.params import DictParameter, IntParameter, ListParameter, NumberParameter, StringParameter
from taskapi.tasks import Task

# 28,000 airports with 11 fields each, from the package airportsdata (Mike Borsetti and others, MIT licence).
AIRPORTS = files("airportsdata") / "airports.csv"

MAX_MESSAGES = 50  # rows with problems that get a message of their own: more would flood the page


class ProfileCsv(Task):
    """Profile a CSV file column by column, and report the rows that do not parse."""

    name = "profile-csv"

    inputs = {
        "csv": StringParameter(required=False, help_text="The text of the file. Without it: the bundled airports."),
    }

    outputs = {
        "rows": IntParameter(),
        "problems": IntParameter(),
        "duplicates": IntParameter(),
        "columns": ListParameter(DictParameter()),
        "charts": DictParameter(),
    }

    def run(self, csv: str | None = None) -> dict[str, Any]:
        try:
            table = profiling.read(AIRPORTS.read_text("utf-8") if csv is None else csv)
        except ValueError as error:
            raise TaskError(str(error)) from error

        profile = profiling.Profile(table)
        for row in self.track(table.rows):
            problem = profile.add(row)
            if problem and profile.problems <= MAX_MESSAGES:
                self.add_message({"line": row.line, "text": problem})

        if profile.problems > MAX_MESSAGES:
            self.add_message({"text": f"… and {profile.problems - MAX_MESSAGES:,} more rows with problems."})
        return profile.summary()


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
