"""A process that blocks on a list, and leaves a stamp for what it is handed: no worker can begin sooner."""

from benchmarks.projects import stamps

QUEUE = "bench:queue"

if __name__ == "__main__":
    while stamps.client().blpop([QUEUE])[1] != b"end":
        stamps.leave()
