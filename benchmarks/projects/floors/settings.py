from benchmarks.projects.common import *  # noqa: F403
