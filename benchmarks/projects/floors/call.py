"""Call a method in a loop that stores a number, and print the figures as JSON."""

import json
import sys

from benchmarks.projects.pacing import seconds_for


class Holder:
    def set_progress(self, progress: int) -> None:
        self.progress = progress


if __name__ == "__main__":
    calls = int(sys.argv[1])
    print(json.dumps({"seconds": seconds_for(calls, Holder().set_progress) / calls}))
