"""The tasks of the documents that the tests read."""

from typing import Any

from rest_framework.permissions import IsAdminUser

from taskapi.params import ChoiceParameter, IntParameter, JSONParameter, ListParameter, StringParameter
from taskapi.tasks import Task


class Report(Task):
    """Write the report of a year."""

    name = "report"
    inputs = {
        "year": IntParameter(min_value=2000, help_text="Four digits."),
        "form": ChoiceParameter(["pdf", 1], default="pdf"),
        "notes": ListParameter(StringParameter(), required=False, allow_null=True),
        "options": JSONParameter(required=False),
    }
    outputs = {"url": StringParameter(), "pages": IntParameter(required=False)}

    def run(self, year, form, notes=None, options=None):
        return {"url": f"/reports/{year}.{form}"}


class Purge(Task):
    """Delete what nobody needs; for staff."""

    name = "old/Säuberung"
    permission_classes = [IsAdminUser]

    def run(self):
        pass


class Mute(Task):
    """Say nothing of itself."""

    name = "mute"

    @classmethod
    def describe(cls) -> dict[str, Any]:
        raise LookupError("no words")

    def run(self):
        pass


OURS = [Report, Purge, Mute]
