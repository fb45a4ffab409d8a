"""A task whose inputs, messages and outputs are too large for a frame."""

from taskapi.params import IntParameter, StringParameter
from taskapi.tasks import Task


class Large(Task):
    """Add and return texts of these lengths."""

    name = "large"
    inputs = {
        "text": StringParameter(required=False, default=""),
        "returned": IntParameter(default=0),  # characters of the output
        "said": IntParameter(default=0),  # characters of a message
        "lines": IntParameter(default=0),  # further messages
    }
    outputs = {"text": StringParameter()}

    def run(self, text, returned, said, lines):
        if said:
            self.add_message("m" * said)
        for number in range(lines):
            self.add_message(f"line {number} {'l' * 100}")
        return "o" * returned or "done"
