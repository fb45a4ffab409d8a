"""Block on a list, and leave a stamp for each item: no worker can begin sooner."""

from benchmarks.projects import stamps

QUEUE = "bench:queue"

if __name__ == "__main__":
    while stamps.client().blpop([QUEUE])[1] != b"end":
        stamps.leave()
