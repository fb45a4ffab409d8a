"""The task that docs/rest.md gives files to."""

from django.core.files import File

from taskapi.params import FileParameter, IntParameter, StringParameter
from taskapi.tasks import Task


class ImportPeople(Task):
    """Count the lines of a file."""

    name = "import-people"
    inputs = {"file": FileParameter(content_types=["text/csv"]), "note": StringParameter(default="")}
    outputs = {"imported": IntParameter()}

    def run(self, file: File, note: str) -> int:
        return sum(1 for _ in file)
